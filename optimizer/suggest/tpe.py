"""Optuna's multi-objective TPE over (quality, latency, cost) with the SLOs as constraints.

Does not know the user's objective. The sampler's study lives in memory and is rebuilt from the history, so that it is a
function of the history alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution

from optimizer.outcome import outcome
from optimizer.pareto import AXES
from optimizer.suggest.pool import assignment_key
from optimizer.suggest.random import RandomSuggester
from optimizer.suggest.suggester import Observation, Problem, Proposal
from search_spaces.parameter import Assignment, Value

MAX_DRAWS = 20  # before a fresh candidate is taken at random


def distributions_of(problem: Problem) -> dict[str, BaseDistribution]:
    """One categorical distribution per parameter."""
    return {name: CategoricalDistribution(p.values()) for name, p in problem.pool.space.parameters.items()}


class TpeSuggester:
    """Optuna's defaults throughout."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._distributions = distributions_of(problem)
        self._random = RandomSuggester(problem)

    def suggest(self, history: Sequence[Observation], pending: Sequence[Assignment]) -> Proposal | None:
        if not history and not pending:
            return self._random.suggest(history, pending)
        study = self._study(history, num_tried=len(history) + len(pending))
        tried = {assignment_key(a) for a in (*(o.assignment for o in history), *pending)}
        for _ in range(MAX_DRAWS):
            assignment = self._draw(study.ask())
            if assignment_key(assignment) not in tried and self._problem.pool.accepts(assignment):
                return Proposal(assignment, "tpe")
        return self._random.suggest(history, pending)

    def _study(self, history: Sequence[Observation], *, num_tried: int) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every study on stderr
        sampler = optuna.samplers.TPESampler(seed=(self._problem.seed * 100_003 + num_tried) % 2**32)
        study = optuna.create_study(
            storage=optuna.storages.InMemoryStorage(), sampler=sampler, directions=["minimize"] * len(AXES)
        )
        trials = [observation.trial for observation in history]
        for i, observation in enumerate(history):
            told = outcome(observation.trial, self._problem.slos, trials[:i])
            if told.values is not None:
                study.add_trial(
                    optuna.create_trial(
                        values=told.values,
                        params=dict(observation.assignment),
                        distributions={name: self._distributions[name] for name in observation.assignment},
                        constraints=told.constraints,
                    )
                )
        return study

    def _draw(self, trial: optuna.Trial) -> dict[str, Value]:
        assignment: dict[str, Value] = {}
        for name, parameter in self._problem.pool.space.parameters.items():
            if parameter.applies(assignment):
                assignment[name] = trial.suggest_categorical(name, parameter.values())
        return assignment
