"""One trial as flat names and scalars: what MLflow compares and the result tables hold.

Does not know where the row goes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from optimizer.results import Cost, QualityScore, TrialResult
from workloads.estimate import Estimate


def trial_metrics(trial: TrialResult) -> dict[str, float]:
    """Every finite number measured or predicted, intervals as `_low` and `_high`."""
    named = dict(trial.metrics)
    for name, estimate in trial.estimates.items():
        named.update(_interval(name, estimate))
    if trial.quality:
        named.update(_quality(trial.quality))
    if trial.cost:
        named.update(_cost(trial.cost))
    if trial.objective is not None:
        named["objective"] = trial.objective
    if trial.slos:
        named["worst_slo_violation"] = max(outcome.violation for outcome in trial.slos)
    return {name: float(value) for name, value in named.items() if math.isfinite(value)}


def _interval(name: str, estimate: Estimate) -> Iterator[tuple[str, float]]:
    yield name, estimate.value
    yield f"{name}_low", estimate.low
    yield f"{name}_high", estimate.high


def _quality(score: QualityScore) -> Iterator[tuple[str, float]]:
    yield from _interval("quality", score.quality)
    for name in ("top1_agreement", "kl_nats", "checks_score"):
        if estimate := getattr(score, name):
            yield from _interval(name, estimate)
    for task, value in score.checks_by_task.items():
        yield f"checks_{task}", value


def _cost(cost: Cost) -> Iterator[tuple[str, float]]:
    yield from _interval("usd_per_million_tokens", cost.usd_per_million_tokens)
    yield from _interval("capacity_rps", cost.capacity_rps)
    yield "usd_per_hour", cost.usd_per_hour
    yield "replicas", cost.replicas
    yield "utilisation", cost.utilisation
