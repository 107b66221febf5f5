"""`Suggester`: the family's protocol, and what its members are told.

Does not know any member: they are listed in `optimizer/suggest/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from optimizer.objective import Objective
from optimizer.results import TrialResult
from optimizer.slo import Slo
from optimizer.suggest.pool import CandidatePool
from search_spaces.parameter import Assignment, Value


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What a study searches: fixed from its first trial to its last."""

    pool: CandidatePool
    objective: Objective
    slos: tuple[Slo, ...]
    seed: int


class Observation(NamedTuple):
    """A candidate and what became of it."""

    assignment: Assignment
    trial: TrialResult


class Proposal(NamedTuple):
    """What to try next, and what proposed it ("default", "probe", "surrogate", ...)."""

    assignment: dict[str, Value]
    origin: str


class Suggester(Protocol):
    """A pure function of the problem and what has been seen: a resumed study goes on as if it had not stopped."""

    def suggest(self, history: Sequence[Observation], pending: Sequence[Assignment]) -> Proposal | None:
        """An assignment neither in the history nor pending; None when there is none left."""
        ...
