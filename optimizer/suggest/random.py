"""Random search: the default, then unmeasured candidates uniformly.

Does not look at results.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from optimizer.suggest.pool import indices_of
from optimizer.suggest.suggester import Observation, Problem, Proposal
from search_spaces.parameter import Assignment


class RandomSuggester:
    """The floor every other strategy must beat."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def suggest(self, history: Sequence[Observation], pending: Sequence[Assignment]) -> Proposal | None:
        pool = self._problem.pool
        tried = [observation.assignment for observation in history] + list(pending)
        if not tried:
            return Proposal(pool.space.default_assignment, "default")
        left = np.setdiff1d(np.arange(len(pool)), indices_of(pool, tried))
        if not len(left):
            return None
        rng = np.random.default_rng([self._problem.seed, len(tried)])
        return Proposal(dict(pool.assignments[int(rng.choice(left))]), "random")
