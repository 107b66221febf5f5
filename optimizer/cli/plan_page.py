"""From planned fleets to what the page of `fopt plan` tells.

Does not plan, print or draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.config import EngineConfig
from optimizer.fleet_plan import FleetOption, MixedFleet
from optimizer.limit_ladder import Step, asked
from reports.numbers import three_digits
from reports.plan_page import MIXED, Basis, FleetPoint, Notch, PlanPage
from workloads.errors import UndefinedMetricError
from workloads.metrics import ServingMetrics


def plan_page(steps: Sequence[Step], *, workload: str, headline: str, load: str) -> PlanPage:
    """`steps` of one ladder."""
    options = sorted(asked(steps).options, key=lambda option: option.config.hardware.sku)
    return PlanPage(
        workload=workload,
        model=Path(options[0].config.model).name,
        headline=headline,
        load=load,
        notches=tuple(_notch(step) for step in steps),
        bases=tuple(_basis(option) for option in options),
    )


def hardware(config: EngineConfig) -> str:
    return f"{config.hardware.count} x {config.hardware.sku}"


def latency(metrics: ServingMetrics, name: str) -> float | None:
    """None where too few requests define it."""
    try:
        return metrics.value(name)
    except UndefinedMetricError:
        return None


def _notch(step: Step) -> Notch:
    points = [_point(option) for option in step.options]
    if step.mixed is not None:
        points.append(_mixed(step.mixed))
    return Notch(factor=step.factor, limits=step.limits, points=tuple(points))


def _point(option: FleetOption) -> FleetPoint:
    metrics = option.fleet.metrics
    return FleetPoint(
        kind=option.config.hardware.sku,
        fleet=f"{option.fleet.cost.replicas} x ({hardware(option.config)})",
        usd_per_hour=option.usd_per_hour if option.holds else None,
        p95_ttft_ms=latency(metrics, "p95_ttft_ms"),
        p95_tpot_ms=latency(metrics, "p95_tpot_ms"),
    )


def _mixed(mixed: MixedFleet) -> FleetPoint:
    return FleetPoint(
        kind=MIXED,
        fleet=" + ".join(f"{pool.replicas} x ({hardware(pool.config)})" for pool in mixed.pools),
        usd_per_hour=mixed.usd_per_hour if mixed.holds else None,
        p95_ttft_ms=latency(mixed.metrics, "p95_ttft_ms"),
        p95_tpot_ms=latency(mixed.metrics, "p95_tpot_ms"),
    )


def _basis(option: FleetOption) -> Basis:
    known = option.provenance
    return Basis(
        sku=option.config.hardware.sku,
        source=str(known.source),
        detail=known.detail,
        median_error=known.median_error,
        num_held_out=known.num_held_out,
        notes=(*known.gaps, *option.fleet.notes),
    )


def usd(dollars: float) -> str:
    return f"${three_digits(dollars)}"
