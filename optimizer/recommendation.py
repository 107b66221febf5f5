"""Which trial to recommend, and when no trial meets the SLOs, what stands in the way.

Does not know how trials were chosen or measured, nor whether the recommendation holds on other traffic.
"""

from __future__ import annotations

from collections.abc import Sequence

from optimizer.errors import OptimizerError
from optimizer.objective import Objective
from optimizer.pareto import dominated_beyond_doubt
from optimizer.reasons import explain, explain_nearest, num_changes
from optimizer.relaxation import advise, violated
from optimizer.results import Recommendation, TrialResult, TrialState
from optimizer.slo import Slo
from workloads.estimate import Estimate

TIE = 0.05  # a smaller gain that the intervals do not prove is no gain


def recommend(trials: Sequence[TrialResult], objective: Objective, slos: tuple[Slo, ...]) -> Recommendation | None:
    """The best trial that meets every SLO, else the nearest one with advice; None when nothing was measured."""
    default = default_of(trials)
    ratios = _ratios(trials, objective, default)
    measured = [trial for trial in trials if trial.number in ratios]
    feasible = [trial for trial in measured if trial.feasible]
    if feasible:
        return _feasible(feasible, measured, ratios, objective, slos, default)
    if measured:
        return _nearest(measured, ratios, objective, slos, default)
    return None


def default_of(trials: Sequence[TrialResult]) -> TrialResult | None:
    """Trial 0, whatever became of it."""
    return next((trial for trial in trials if trial.number == 0), None)


def _ratios(trials: Sequence[TrialResult], objective: Objective, default: TrialResult | None) -> dict[int, Estimate]:
    """The objective relative to the default's, of every trial whose measurement means something."""
    found = {}
    for trial in trials:
        if trial.state is TrialState.COMPLETE and not trial.reason:
            try:
                found[trial.number] = objective.ratio(trial, default)
            except OptimizerError:
                continue
    return found


def _feasible(
    feasible: list[TrialResult],
    measured: list[TrialResult],
    ratios: dict[int, Estimate],
    objective: Objective,
    slos: tuple[Slo, ...],
    default: TrialResult | None,
) -> Recommendation:
    best = min(feasible, key=lambda t: (ratios[t.number].value, t.number))
    tied = [trial for trial in feasible if ties(ratios[trial.number], ratios[best.number])]
    undominated = [t for t in tied if not any(dominated_beyond_doubt(t, other) for other in tied)]
    chosen = min(undominated, key=lambda t: (num_changes(t, default), ratios[t.number].value, t.number))
    reasons = explain(chosen, default, objective, num_measured=len(measured), num_feasible=len(feasible), tied=tied)
    better = {t.number: r for t in measured if (r := ratios[t.number]).value < ratios[chosen.number].value * (1 - TIE)}
    advice = advise([t for t in measured if t.number in better], slos, objective, ratios, chosen=chosen)
    return Recommendation(trial=chosen.number, feasible=True, reasons=reasons, advice=advice)


def ties(one: Estimate, other: Estimate) -> bool:
    """Closer than `TIE`, and each value inside the other's interval, or practically the same number."""
    close = abs(one.value - other.value) <= TIE * abs(other.value)
    within = other.low <= one.value <= other.high and one.low <= other.value <= one.high
    return close and (within or abs(one.value - other.value) <= 1e-3 * abs(other.value))


def _nearest(
    measured: list[TrialResult],
    ratios: dict[int, Estimate],
    objective: Objective,
    slos: tuple[Slo, ...],
    default: TrialResult | None,
) -> Recommendation:
    nearest = min(measured, key=lambda t: (total_violation(t), ratios[t.number].value, t.number))
    advice = advise(measured, slos, objective, ratios, chosen=nearest)
    binding = tuple(outcome.slo for outcome in violated(nearest))
    reasons = explain_nearest(nearest, measured, default, objective)
    return Recommendation(trial=nearest.number, feasible=False, reasons=reasons, binding_slos=binding, advice=advice)


def total_violation(trial: TrialResult) -> float:
    """Sum of the relative distances past the limits."""
    return sum(outcome.violation for outcome in violated(trial))
