"""`Lessons`: what a history teaches about latency, cost, the objective and the SLOs, relative to the default.

Does not predict anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from optimizer.errors import OptimizerError
from optimizer.pareto import losses, non_dominated
from optimizer.results import TrialResult
from optimizer.slo import Slo
from optimizer.suggest.kernels import Floats
from optimizer.suggest.pool import assignment_key
from optimizer.suggest.suggester import Observation, Problem

SMALLEST_LOSS = 1e-4  # of quality: less is noise
MOST = 48  # observations that a surrogate is conditioned on
_LEAST_SLACK = -0.98  # keeps the logarithm of 1 + violation finite


class Lessons(NamedTuple):
    """One row per measured candidate of the pool."""

    at: npt.NDArray[np.int64]  # (n,) pool indices
    losses: Floats  # (n, 3): quality loss, latency / default's, cost / default's
    objective: Floats  # (n,) ratio to the default's
    limits: Floats  # (n, SLOs not on quality): log(1 + violation), <= 0 is met
    feasible: npt.NDArray[np.bool_]  # (n,)

    @property
    def best_objective(self) -> float:
        """Of the feasible; the worst of all before one is feasible, so that anything is an improvement."""
        return float(self.objective[self.feasible].min() if self.feasible.any() else self.objective.max())


def learn(history: Sequence[Observation], problem: Problem) -> Lessons | None:
    """None when nothing was measured on every axis."""
    measured = [(o, found) for o in history if (found := _losses_in(o, problem)) is not None]
    if not measured:
        return None
    default = next((o.trial for o in history if o.trial.number == 0), None)
    scale = next((found for o, found in measured if o.trial is default), measured[0][1])
    limits = load_slos(problem.slos)
    lessons = Lessons(
        at=np.array([problem.pool.index[assignment_key(o.assignment)] for o, _ in measured]),
        losses=np.array([_relative(found, scale) for _, found in measured]),
        objective=np.array([_ratio(o.trial, default, problem) for o, _ in measured]),
        limits=np.array([_limits(o.trial, limits) for o, _ in measured]).reshape(len(measured), len(limits)),
        feasible=np.array([o.trial.feasible for o, _ in measured]),
    )
    return _most_telling(lessons)


def load_slos(slos: tuple[Slo, ...]) -> tuple[Slo, ...]:
    """Those that depend on more than the quality class."""
    return tuple(slo for slo in slos if slo.measure.source != "quality")


def _losses_in(observation: Observation, problem: Problem) -> tuple[float, ...] | None:
    return losses(observation.trial) if assignment_key(observation.assignment) in problem.pool.index else None


def _relative(found: tuple[float, ...], scale: tuple[float, ...]) -> tuple[float, ...]:
    loss, *rest = found
    return (max(loss, SMALLEST_LOSS), *(max(v, 1e-9) / max(s, 1e-9) for v, s in zip(rest, scale[1:], strict=True)))


def _ratio(trial: TrialResult, default: TrialResult | None, problem: Problem) -> float:
    """1 where the trial lacks what the objective is about: no better than the default."""
    try:
        return max(problem.objective.ratio(trial, default).value, 1e-9)
    except OptimizerError:
        return 1.0


def _limits(trial: TrialResult, slos: tuple[Slo, ...]) -> list[float]:
    violations = {outcome.slo: outcome.violation for outcome in trial.slos}
    return [float(np.log1p(max(violations.get(slo.text, 0.0), _LEAST_SLACK))) for slo in slos]


def _most_telling(lessons: Lessons) -> Lessons:
    """At most `MOST` rows: the default, the front and the best objectives first, then the latest."""
    if len(lessons.at) <= MOST:
        return lessons
    front = np.flatnonzero(non_dominated(lessons.losses))[: MOST // 3]
    best = np.argsort(lessons.objective, kind="stable")[: MOST // 3]
    latest = np.arange(len(lessons.at))[::-1]
    order = np.concatenate([[0], front, best, latest])
    _, first = np.unique(order, return_index=True)
    kept = np.sort(order[np.sort(first)[:MOST]])
    return Lessons(*(column[kept] for column in lessons))
