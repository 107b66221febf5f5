"""`AcceptanceProfile`: how many draft tokens a step keeps, and how many steps an answer takes then.

Does not know who drafts or what drafting costs.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from math import isnan, nan

import numpy as np

from engine.simulator.errors import SimulatorError
from engine.simulator.traffic import Floats

_POOL = 1 << 14  # steps drawn once and walked through by all answers


@dataclass(frozen=True, kw_only=True)
class AcceptanceProfile:
    """`per_position[j]` is the chance that the draft's token j is there and kept, given that those before it were.

    Args:
        drafted: tokens drafted by a sequence's step on average, fewer where nothing was found to draft; None: all.
        tree_nodes: tokens of a draft that is a tree, of which `per_position` tells the depths; None: a chain.
    """

    per_position: tuple[float, ...]
    drafted: float | None = None
    tree_nodes: int | None = None

    def __post_init__(self) -> None:
        if not self.per_position or not all(0 <= chance <= 1 for chance in self.per_position):
            raise SimulatorError("an acceptance profile has a chance between 0 and 1 for every draft token")
        if self.drafted is not None and not 0 <= self.drafted <= self.num_draft_tokens:
            raise SimulatorError(f"{self.drafted:g} tokens are drafted a step, of {self.num_draft_tokens} at most")

    @property
    def num_draft_tokens(self) -> int:
        """Most tokens that a sequence drafts in a step."""
        return self.tree_nodes or self.depth

    @property
    def depth(self) -> int:
        """Most draft tokens that a step can keep."""
        return len(self.per_position)

    @property
    def drafted_share(self) -> float:
        """Tokens drafted over the most there could be."""
        return 1.0 if self.drafted is None else self.drafted / self.num_draft_tokens

    @property
    def mean_tokens(self) -> float:
        """Expected tokens of a step, the bonus token included: 1 + Σ_j Π_{i<=j} a_i."""
        return 1.0 + float(np.cumprod(self.per_position).sum())


class StepDrawer:
    """Draws how many steps a number of tokens takes; the same seed gives the same answers."""

    def __init__(self, profile: AcceptanceProfile, seed: int) -> None:
        chances = np.random.default_rng(seed).random((_POOL, profile.depth))
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


class AnswerSteps:
    """How many steps the remaining tokens of a traffic's answers take.

    Args:
        profile: None: no drafts, a step a token.
        tokens_per_step: by request, where its own is known; NaN elsewhere.
    """

    def __init__(self, profile: AcceptanceProfile | None, seed: int, tokens_per_step: Floats | None) -> None:
        self._drawer = StepDrawer(profile, seed) if profile else None
        self._own: list[float] | None = None if tokens_per_step is None else tokens_per_step.tolist()

    def of(self, request: int, num_tokens: int) -> int:
        """0 for no tokens."""
        if self._drawer is None or not num_tokens:
            return num_tokens
        own = nan if self._own is None else self._own[request]
        return self._drawer.steps(num_tokens) if isnan(own) else max(1, round(num_tokens / own))
