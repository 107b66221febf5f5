"""`Lessons`: what a history teaches about latency, cost, the objective and the SLOs, relative to the default.

Does not predict anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from optimizer.errors import OptimizerError
from optimizer.pareto import AXES, losses, non_dominated
from optimizer.results import TrialResult, TrialState
from optimizer.slo import Slo, violation
from optimizer.suggest.kernels import Floats
from optimizer.suggest.pool import assignment_key
from optimizer.suggest.suggester import Observation, Problem

SMALLEST_LOSS = 1e-4  # of quality: less is noise
MOST = 48  # observations that a surrogate is conditioned on
_LEAST_SLACK = -0.98  # keeps the logarithm of 1 + violation finite


class Lessons(NamedTuple):
    """One row per candidate of the pool that was measured, or stopped before it was.

    Of a stopped one the numbers are what it would at least have measured; NaN where nothing is known.
    """

    at: npt.NDArray[np.int64]  # (n,) pool indices
    losses: Floats  # (n, 3): quality loss, latency / default's, cost / default's
    objective: Floats  # (n,) ratio to the default's
    limits: Floats  # (n, SLOs not on quality): log(1 + violation), <= 0 is met
    feasible: npt.NDArray[np.bool_]  # (n,)
    at_least: npt.NDArray[np.bool_]  # (n,) stopped

    @property
    def best_objective(self) -> float:
        """Of the feasible; the worst of all before one is feasible, so that anything is an improvement."""
        measured = self.objective[~self.at_least]
        return float(self.objective[self.feasible].min() if self.feasible.any() else measured.max())


def learn(history: Sequence[Observation], problem: Problem) -> Lessons | None:
    """None when nothing was measured on every axis."""
    measured = [(o, found) for o in history if (found := _losses_in(o, problem)) is not None]
    if not measured:
        return None
    default = next((o.trial for o in history if o.trial.number == 0), None)
    scale = next((found for o, found in measured if o.trial is default), measured[0][1])
    limits = load_slos(problem.slos)
    measured += [(o, found) for o in history if (found := _least_losses_in(o, problem)) is not None]
    lessons = Lessons(
        at=np.array([problem.pool.index[assignment_key(o.assignment)] for o, _ in measured]),
        losses=np.array([_relative(found, scale) for _, found in measured]),
        objective=np.array([_ratio(o.trial, default, problem) for o, _ in measured]),
        limits=np.array([_limits(o.trial, limits) for o, _ in measured]).reshape(len(measured), len(limits)),
        feasible=np.array([o.trial.feasible for o, _ in measured]),
        at_least=np.array([o.trial.state is TrialState.STOPPED for o, _ in measured]),
    )
    return _most_telling(lessons)


def load_slos(slos: tuple[Slo, ...]) -> tuple[Slo, ...]:
    """Those that depend on more than the quality class."""
    return tuple(slo for slo in slos if slo.measure.source != "quality")


def _losses_in(observation: Observation, problem: Problem) -> tuple[float, ...] | None:
    return losses(observation.trial) if assignment_key(observation.assignment) in problem.pool.index else None


def _least_losses_in(observation: Observation, problem: Problem) -> tuple[float, ...] | None:
    """Of a stopped candidate; NaN where nothing is known."""
    trial = observation.trial
    if trial.state is not TrialState.STOPPED or assignment_key(observation.assignment) not in problem.pool.index:
        return None
    quality = 1 - trial.quality.quality.value if trial.quality else float("nan")
    bounds = (axis.at_least(trial) for axis in AXES[1:])
    return (quality, *(float("nan") if bound is None else bound for bound in bounds))


def _relative(found: tuple[float, ...], scale: tuple[float, ...]) -> tuple[float, ...]:
    loss, *rest = found
    return (max(loss, SMALLEST_LOSS), *(max(v, 1e-9) / max(s, 1e-9) for v, s in zip(rest, scale[1:], strict=True)))


def _ratio(trial: TrialResult, default: TrialResult | None, problem: Problem) -> float:
    """1 where the trial lacks what the objective is about: no better than the default; of a stopped one at least."""
    if trial.state is TrialState.STOPPED:
        return _least_ratio(trial, default, problem)
    try:
        return max(problem.objective.ratio(trial, default).value, 1e-9)
    except OptimizerError:
        return 1.0


def _least_ratio(trial: TrialResult, default: TrialResult | None, problem: Problem) -> float:
    """Where the objective is one measure that a bound is known of; NaN elsewhere."""
    (term, *others) = problem.objective.terms
    bound = term.measure.at_least(trial)
    if others or bound is None or default is None:
        return float("nan")
    return max(bound / term.measure.read_trial(default).value, 1e-9)


def _limits(trial: TrialResult, slos: tuple[Slo, ...]) -> list[float]:
    if trial.state is TrialState.STOPPED:
        bounds = [slo.measure.at_least(trial) if slo.is_upper else None for slo in slos]
        pairs = zip(slos, bounds, strict=True)
        return [
            float("nan") if bound is None else float(np.log1p(max(violation(slo, bound), _LEAST_SLACK)))
            for slo, bound in pairs
        ]
    violations = {outcome.slo: outcome.violation for outcome in trial.slos}
    return [float(np.log1p(max(violations.get(slo.text, 0.0), _LEAST_SLACK))) for slo in slos]


def _most_telling(lessons: Lessons) -> Lessons:
    """At most `MOST` rows: the default, the front and the best objectives first, then the latest."""
    if len(lessons.at) <= MOST:
        return lessons
    whole = np.flatnonzero(~lessons.at_least)
    front = whole[non_dominated(lessons.losses[whole])][: MOST // 3]
    best = np.argsort(lessons.objective, kind="stable")[: MOST // 3]
    latest = np.arange(len(lessons.at))[::-1]
    order = np.concatenate([[0], front, best, latest])
    _, first = np.unique(order, return_index=True)
    kept = np.sort(order[np.sort(first)[:MOST]])
    return Lessons(*(column[kept] for column in lessons))
