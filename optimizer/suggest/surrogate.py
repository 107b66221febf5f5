"""The default strategy: probes, then Gaussian processes and what each candidate is expected to add.

Does not measure and does not know engines. Proposals alternate between the front as a whole (expected hypervolume
improvement over quality, latency and cost) and the user's objective (expected improvement), both weighed by the chance
that the candidate runs and meets the SLOs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr, ndtr

from optimizer.errors import OptimizerError
from optimizer.measure import Measure
from optimizer.results import TrialState
from optimizer.suggest.acquisition import LogNormal, expected_hypervolume_improvement, expected_improvement
from optimizer.suggest.beliefs import expected_effects
from optimizer.suggest.failure_risk import failure_risk
from optimizer.suggest.gaussian_process import GaussianProcess, Prior
from optimizer.suggest.kernels import Floats, similarities, similarity_tables
from optimizer.suggest.lessons import SMALLEST_LOSS, Lessons, learn, load_slos
from optimizer.suggest.pool import assignment_key, indices_of
from optimizer.suggest.probes import probes
from optimizer.suggest.quality_prediction import QualityModel
from optimizer.suggest.suggester import Observation, Problem, Proposal
from search_spaces.parameter import Assignment

# Of log(value / default's). Small and wide: most parameters hardly matter, some matter much.
PRIOR = Prior(constant=0.05, parameter=0.06, pairs=0.06, noise=0.02, spread=1.0)
OBJECTIVE_EVERY = 3  # one proposal in so many pursues the user's objective, the others the front
REACH = 1.5  # the front is looked for up to this many times the default's latency and cost
WIDEST_LOSS = 0.05  # and up to this loss of quality where no SLO bounds it
WORTHWHILE = 0.01  # expected decrease of the objective's logarithm below which only the front is pursued

Indices = npt.NDArray[np.int64]


class SurrogateSuggester:
    """Learns from every trial, whatever became of it."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._pool = problem.pool
        self._probes = probes(problem.pool)

    @cached_property
    def _tables(self) -> list[Floats]:
        return similarity_tables(self._pool.space)

    @cached_property
    def _quality(self) -> QualityModel:
        return QualityModel(self._pool, self._tables, self._problem.slos)

    def suggest(self, history: Sequence[Observation], pending: Sequence[Assignment]) -> Proposal | None:
        tried = [observation.assignment for observation in history] + list(pending)
        if not tried:
            return Proposal(self._pool.space.default_assignment, "default")
        return self._probe(history, tried) or self._most_promising(history, tried)

    def _probe(self, history: Sequence[Observation], tried: list[Assignment]) -> Proposal | None:
        """The next technique nobody tried, on top of the best so far."""
        incumbent = self._incumbent(history)
        keys = {assignment_key(assignment) for assignment in tried}
        for name, value in self._probes:
            if any(assignment.get(name) == value for assignment in tried):
                continue
            proposal = self._pool.completed({**incumbent, name: value})
            if assignment_key(proposal) in self._pool.index and assignment_key(proposal) not in keys:
                return Proposal(proposal, "probe")
        return None

    def _incumbent(self, history: Sequence[Observation]) -> Assignment:
        """The feasible candidate with the best objective, the default before there is one."""
        default = next((o.trial for o in history if o.trial.number == 0), None)
        best, chosen = float("inf"), self._pool.space.default_assignment
        for observation in history:
            if observation.trial.feasible:
                try:
                    ratio = self._problem.objective.ratio(observation.trial, default).value
                except OptimizerError:
                    continue
                if ratio < best:
                    best, chosen = ratio, dict(observation.assignment)
        return chosen

    def _most_promising(self, history: Sequence[Observation], tried: list[Assignment]) -> Proposal | None:
        left = np.setdiff1d(np.arange(len(self._pool)), indices_of(self._pool, tried))
        if not len(left):
            return None
        gain, origin = self._gain(history, left, pursue_objective=len(tried) % OBJECTIVE_EVERY == 0)
        largest = np.flatnonzero(gain >= gain.max())
        rng = np.random.default_rng([self._problem.seed, len(tried)])
        return Proposal(dict(self._pool.assignments[int(left[rng.choice(largest)])]), origin)

    def _gain(self, history: Sequence[Observation], left: Indices, *, pursue_objective: bool) -> tuple[Floats, str]:
        """What each candidate left is expected to add, and to what."""
        runs = 1 - self._risk(history, left)
        lessons = learn(history, self._problem)
        if lessons is None:
            return runs, "surrogate: what may run"
        predictor = _Predictor(lessons, self._tables, self._pool.codes, left)
        quality = self._quality.predict(history)
        chance = runs * quality.feasible[left] * self._meets_limits(predictor, lessons)
        if pursue_objective:
            objective = predictor.predict(np.log(lessons.objective), self._belief_of_objective)
            gain = chance * expected_improvement(objective, lessons.best_objective)
            if gain.max() > WORTHWHILE:
                return gain, "surrogate: objective"
        latency, cost = (
            predictor.predict(np.log(lessons.losses[:, i + 1]), belief) for i, belief in enumerate(self._beliefs.T)
        )
        axes = (LogNormal(quality.loss.mean[left], quality.loss.deviation[left]), latency, cost)
        front = lessons.losses[lessons.feasible]
        return chance * expected_hypervolume_improvement(axes, front, self._reference), "surrogate: front"

    @cached_property
    def _beliefs(self) -> Floats:
        """(candidates, 2): what is believed of log(latency) and log(cost), relative to the default's."""
        return expected_effects(self._pool.configs, self._pool.configs[0])

    @cached_property
    def _belief_of_objective(self) -> Floats:
        terms = self._problem.objective.terms
        return np.asarray(sum(term.weight * self._belief_of(term.measure) for term in terms))

    def _belief_of(self, measure: Measure) -> Floats:
        """More of what is better when more moves as the cost does, downwards."""
        if measure.is_latency:
            return self._beliefs[:, 0]
        return self._beliefs[:, 1] if measure.source == "cost" else np.zeros(len(self._pool))

    def _meets_limits(self, predictor: _Predictor, lessons: Lessons) -> Floats:
        """Probability that every SLO on latency, cost and load is met."""
        chance = np.array(1.0)
        for slo, logs in zip(load_slos(self._problem.slos), lessons.limits.T, strict=True):
            log = predictor.predict(logs, self._belief_of(slo.measure))
            chance = chance * ndtr(-log.mean / log.deviation)
        return chance

    @property
    def _reference(self) -> Floats:
        """The corner of the box in which the front is looked for: quality loss, latency and cost."""
        floors = [slo.limit for slo in self._problem.slos if slo.metric == "quality" and not slo.is_upper]
        widest = max(1 - max(floors), 2 * SMALLEST_LOSS) if floors else WIDEST_LOSS
        return np.array([widest, REACH, REACH])

    def _risk(self, history: Sequence[Observation], left: Indices) -> Floats:
        failed = np.array([o.trial.state in (TrialState.FAILED, TrialState.REFUSED) for o in history], dtype=bool)
        tried = self._pool.encode([observation.assignment for observation in history])
        return failure_risk(self._pool.codes[left], tried, failed)


class _Predictor:
    """Processes over the candidates left, all conditioned on the same trials."""

    def __init__(self, lessons: Lessons, tables: list[Floats], codes: Indices, left: Indices) -> None:
        at = lessons.at
        self._at, self._left, self._at_least = at, left, lessons.at_least
        self._observed = similarities(tables, codes[at], codes[at])
        self._cross = similarities(tables, codes[left], codes[at])
        self._own = np.ones(self._cross.shape[:2])  # every similarity of a candidate to itself is 1

    def predict(self, logs: Floats, belief: Floats) -> LogNormal:
        """Of one logarithm per trial, as deviations from what was believed of every candidate of the pool.

        What a stopped trial measured at least is not taken for what it measured: it stands for the expectation above
        it, given the measured trials (one step of expectation maximisation: Hutter, Hoos and Leyton-Brown, "Bayesian
        optimization with censored response data", 2011).
        """
        y = soften(logs) - belief[self._at]
        exact, censored = np.flatnonzero(~self._at_least), np.flatnonzero(self._at_least & ~np.isnan(logs))
        rows = exact
        process = GaussianProcess.fit(self._among(exact, exact), y[exact], PRIOR)
        if len(censored):
            own = np.ones((len(self._observed), len(censored)))
            believed = process.predict(self._among(censored, exact), own)
            y[censored] = above(y[censored], *believed)
            rows = np.concatenate([exact, censored])
            process = GaussianProcess.given(process.amplitudes, self._among(rows, rows), y[rows])
        mean, deviation = process.predict(self._cross[:, :, rows], self._own)
        return LogNormal(mean + belief[self._left], deviation)

    def _among(self, a: Indices, b: Indices) -> Floats:
        return self._observed[:, a][:, :, b]


def above(bound: Floats, mean: Floats, deviation: Floats) -> Floats:
    """Expectation of a normal variable that is known to be above a bound: μ + σ φ(z) / Φ(-z), z = (bound - μ) / σ."""
    z = (bound - mean) / deviation
    hazard = np.exp(-0.5 * z**2 - 0.5 * np.log(2 * np.pi) - log_ndtr(-z))
    return np.asarray(np.maximum(bound, mean + deviation * hazard))


def soften(logs: Floats) -> Floats:
    """Logarithms above 0 pressed together: how much worse than the default something is hardly matters."""
    return np.where(logs > 0, np.log1p(np.maximum(logs, 0)), logs)
