"""What an Optuna study is told of a trial: the one place where outcomes become states, values and constraints.

Does not know samplers or storages. Samplers ignore FAIL, and hear no constraint of it, so a candidate that could not
run is told as COMPLETE, violating everything, with the worst values seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optimizer.pareto import AXES, losses
from optimizer.results import TrialResult, TrialState
from optimizer.slo import Slo, violation

RUNS = "runs"  # constraint of every study: the engine could run it
_UNKNOWN_LOSSES = (1.0,) * len(AXES)  # told of a failure before anything was measured


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`values` (losses over the axes, minimised) are None for a trial that taught nothing: Optuna's FAIL.

    `constraints` have the same keys in the same order for every trial of a study; <= 0 is feasible.
    """

    values: tuple[float, ...] | None
    constraints: dict[str, float]


def outcome(trial: TrialResult, slos: tuple[Slo, ...], told_before: Sequence[TrialResult]) -> Outcome:
    """Measured: its losses and violations. Could not run: worst losses, everything violated. Void: nothing.

    Stopped: what it is known to lose and to violate at least, the worst seen where nothing is known: a rank that it
    cannot be better than, with a rival or a violated limit in front of it.
    """
    found = losses(trial)
    if found is not None:
        by_text = {o.slo: o.violation for o in trial.slos}
        return Outcome(values=found, constraints={RUNS: 0.0} | {slo.text: by_text.get(slo.text, 0.0) for slo in slos})
    if trial.state is TrialState.STOPPED:
        return Outcome(values=_least_losses(trial, told_before), constraints={RUNS: 0.0} | _violations(trial, slos))
    violated = {RUNS: 1.0} | {slo.text: 1.0 for slo in slos}
    if trial.state is TrialState.COMPLETE:
        return Outcome(values=None, constraints=violated)
    return Outcome(values=_worst(told_before), constraints=violated)


def _least_losses(trial: TrialResult, told_before: Sequence[TrialResult]) -> tuple[float, ...]:
    quality, *others = _worst(told_before)
    known = 1 - trial.quality.quality.value if trial.quality else quality
    bounds = (axis.at_least(trial) for axis in AXES[1:])
    return (known, *(worst if bound is None else bound for bound, worst in zip(bounds, others, strict=True)))


def _violations(trial: TrialResult, slos: tuple[Slo, ...]) -> dict[str, float]:
    """As far as bounds tell; 0 where they do not."""
    found = {}
    for slo in slos:
        bound = slo.measure.at_least(trial) if slo.is_upper else None
        found[slo.text] = 0.0 if bound is None else max(0.0, violation(slo, bound))
    return found


def _worst(trials: Sequence[TrialResult]) -> tuple[float, ...]:
    measured = [found for trial in trials if (found := losses(trial)) is not None]
    return tuple(max(axis) for axis in zip(*measured, strict=True)) if measured else _UNKNOWN_LOSSES
