"""`limit_ladder`: what a recorded load costs an hour when every latency limit is tightened or loosened.

Knows nothing between its steps: a limit in between costs at most what the tighter neighbour does. All is predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.config import EngineConfig
from optimizer.fleet_plan import FleetOption, FleetPlanner, MixedFleet
from optimizer.slo import Slo

FACTORS = (0.5, 0.75, 1.0, 1.5, 2.0)


@dataclass(frozen=True, kw_only=True)
class Step:
    """The fleets for one scaling of the limits; `factor` 1 is what was asked."""

    factor: float
    slos: tuple[Slo, ...]
    options: tuple[FleetOption, ...]  # the best of each SKU: those that hold by dollars, then the nearest first
    mixed: MixedFleet | None

    @property
    def limits(self) -> str:
        return "; ".join(map(str, self.slos))

    @property
    def cheapest(self) -> FleetOption | None:
        """Of one kind; None where none holds the limits."""
        return self.options[0] if self.options[0].holds else None

    @property
    def held_mix(self) -> MixedFleet | None:
        return self.mixed if self.mixed is not None and self.mixed.holds else None


def limit_ladder(
    planner: FleetPlanner,
    configs: Sequence[EngineConfig],
    slos: tuple[Slo, ...],
    *,
    report: Callable[[str], None],
    factors: Sequence[float] = FACTORS,
) -> list[Step]:
    """A step a factor, by factor; without limits the one step of factor 1.

    Raises:
        OptimizerError, SimulatorError: as `FleetPlanner.options`.
    """
    steps = []
    for factor in sorted(factors) if slos else (1.0,):
        scaled = tuple(slo.with_limit(float(f"{slo.limit * factor:.6g}")) for slo in slos)
        where = "; ".join(map(str, scaled)) or "no limits"
        report(f"fleets of one SKU ({where})")
        options = planner.options(configs, scaled)
        report(f"mixed fleets ({where})")
        mixed = planner.mixed(options, scaled)
        steps.append(Step(factor=factor, slos=scaled, options=_best_of_each_sku(options), mixed=mixed))
    return steps


def asked(steps: Sequence[Step]) -> Step:
    """The step of what was asked."""
    return next(step for step in steps if step.factor == 1.0)


def _best_of_each_sku(options: Sequence[FleetOption]) -> tuple[FleetOption, ...]:
    """The options are sorted: the first of each SKU is its best."""
    best: dict[str, FleetOption] = {}
    for option in options:
        best.setdefault(option.config.hardware.sku, option)
    return tuple(best.values())
