"""`AcceptanceProfile`: how many draft tokens a step keeps, and how many steps an answer takes then.

Does not know who drafts or what drafting costs.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from engine.simulator.errors import SimulatorError

_POOL = 1 << 14  # steps drawn once and walked through by all answers


@dataclass(frozen=True, kw_only=True)
class AcceptanceProfile:
    """`per_position[j]` is the chance that the draft's token j is kept, given that those before it were."""

    per_position: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.per_position or not all(0 <= chance <= 1 for chance in self.per_position):
            raise SimulatorError("an acceptance profile has a chance between 0 and 1 for every draft token")

    @property
    def num_draft_tokens(self) -> int:
        """Tokens drafted in a step."""
        return len(self.per_position)

    @property
    def mean_tokens(self) -> float:
        """Expected tokens of a step, the bonus token included: 1 + Σ_j Π_{i<=j} a_i."""
        return 1.0 + float(np.cumprod(self.per_position).sum())


class StepDrawer:
    """Draws how many steps a number of tokens takes; the same seed gives the same answers."""

    def __init__(self, profile: AcceptanceProfile, seed: int) -> None:
        chances = np.random.default_rng(seed).random((_POOL, profile.num_draft_tokens))
        kept = np.cumprod(chances < np.array(profile.per_position), axis=1).sum(axis=1)
        self._ends: list[int] = [0, *np.cumsum(1 + kept).tolist()]  # tokens after so many steps of the pool
        self._place = 0

    def steps(self, num_tokens: int) -> int:
        """Steps until at least `num_tokens` have come."""
        place, ends = self._place, self._ends
        wanted = ends[place] + num_tokens
        steps = 0
        while wanted > ends[-1]:  # the pool is walked through again
            steps += len(ends) - 1 - place
            wanted -= ends[-1]
            place = 0
        end = bisect_left(ends, wanted, place)
        self._place = end if end < len(ends) - 1 else 0
        return max(1, steps + end - place)
