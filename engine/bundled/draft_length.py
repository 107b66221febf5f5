"""How many tokens to draft: always the same number, or as many as pay (`num_speculative_tokens: auto`).

Does not know who drafts. A further draft token pays when its chance of being kept is above what its computation would
yield otherwise: its share of a step's time, times the tokens a second the engine makes now (goodput; Liu et al. 2024,
"Optimizing speculative decoding for serving large language models using goodput"). Under load tokens cost more and
drafts get shorter by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Seq
from typing import NamedTuple, Protocol

import numpy as np

from engine.bundled.sequence import Sequence
from engine.config import SpeculativeConfig

MAX_LENGTH = 16
FIXED_FOR_DRAWN = 4
_FORGET = 0.98  # of step times, a step
_FORGET_TRIES = 0.9  # of one sequence's drafts, a draft
_PRIOR_TRIES = 4.0
_FIT_EVERY = 16  # steps
_FIRST_THRESHOLD = 0.3  # before the first step
_PROBE_EVERY = 8  # drafts of one token, for learning, where none pays
_PRIOR_WEIGHT = 0.5  # steps' worth of belief in the first guess of the costs


class DraftOutcome(NamedTuple):
    """What became of one sequence's draft."""

    sequence: Sequence
    num_drafted: int
    num_kept: int


class DraftLength(Protocol):
    """Says how far to draft, and learns from what became of it."""

    max_length: int

    def of(self, sequence: Sequence) -> int:
        """Tokens to draft for this sequence in this step, at most `max_length`."""
        ...

    def min_chance(self) -> float:
        """Of being kept, below which a token of a tree is not drafted."""
        ...

    def observe(self, outcomes: Seq[DraftOutcome], *, duration_s: float) -> None:
        """A step in which every sequence decoded; those without a draft have `num_drafted` 0."""
        ...


class FixedLength:
    """The same number always; 0 is no speculation."""

    def __init__(self, length: int) -> None:
        self.max_length = length

    def of(self, sequence: Sequence) -> int:  # noqa: ARG002
        return self.max_length

    def min_chance(self) -> float:
        return 0.0

    def observe(self, outcomes: Seq[DraftOutcome], *, duration_s: float) -> None:
        """Nothing to learn."""


class AdaptiveLength:
    """As many tokens as pay; where none does, one in every eighth draft, so that it keeps learning.

    Args:
        drafts_cost_passes: whether drafting itself takes a pass a token, which the step's time shows.
        drafts_are_drawn: whether drafts of drawn requests are drawn too.
    """

    max_length = MAX_LENGTH

    def __init__(self, *, drafts_cost_passes: bool, drafts_are_drawn: bool = False) -> None:
        self._drafts_cost_passes = drafts_cost_passes
        self._drafts_are_drawn = drafts_are_drawn
        self._costs = StepCosts()
        self._kept, self._tried = 2.0, 4.0  # over all sequences
        self._tokens = 0.0
        self._seconds = 0.0
        self._batch = 1.0
        self._log_threshold = math.log(_FIRST_THRESHOLD)
        self._num_unpaid = 0

    def of(self, sequence: Sequence) -> int:
        if self._drafts_are_drawn and not sequence.params.is_greedy:
            return FIXED_FOR_DRAWN  # what a seed draws depends on the length, and must not depend on the clock
        paid = math.floor(self._log_threshold / math.log(self._chance(sequence)))
        if paid:
            return min(self.max_length, paid)
        self._num_unpaid += 1
        return int(self._num_unpaid % _PROBE_EVERY == 1)

    def min_chance(self) -> float:
        return 0.0

    def observe(self, outcomes: Seq[DraftOutcome], *, duration_s: float) -> None:
        longest = num_tokens = num_new = 0
        for sequence, num_drafted, num_kept in outcomes:
            num_tokens += 1 + num_drafted
            num_new += 1 + num_kept
            if num_drafted:
                longest = max(longest, num_drafted)
                num_tried = min(num_kept + 1, num_drafted)
                sequence.num_drafts_kept = _FORGET_TRIES * sequence.num_drafts_kept + num_kept
                sequence.num_drafts_tried = _FORGET_TRIES * sequence.num_drafts_tried + num_tried
                self._kept = _FORGET * self._kept + num_kept
                self._tried = _FORGET * self._tried + num_tried
        self._tokens = _FORGET * self._tokens + num_new
        self._seconds = _FORGET * self._seconds + duration_s
        self._batch = _FORGET * self._batch + (1 - _FORGET) * len(outcomes)
        self._costs.add(num_tokens, longest if self._drafts_cost_passes else 0, duration_s)
        self._log_threshold = math.log(self._threshold())

    def _chance(self, sequence: Sequence) -> float:
        """That the next draft token is kept: the sequence's own record, begun from everybody's."""
        overall = self._kept / self._tried
        own = sequence.num_drafts_kept + _PRIOR_TRIES * overall
        return min(0.995, max(0.01, own / (sequence.num_drafts_tried + _PRIOR_TRIES)))

    def _threshold(self) -> float:
        """The chance at which a draft token just pays."""
        per_token, per_pass = self._costs.fitted()
        cost_s = per_token + (per_pass / max(1.0, self._batch) if self._drafts_cost_passes else 0.0)
        return min(0.99, max(0.01, cost_s * self._tokens / self._seconds))


class AdaptiveTree(AdaptiveLength):
    """Trees of those tokens that pay: who drafts them says how likely each is kept."""

    def of(self, sequence: Sequence) -> int:  # noqa: ARG002
        return self.max_length

    def min_chance(self) -> float:
        return math.exp(self._log_threshold)


def make_draft_length(speculation: SpeculativeConfig | None) -> DraftLength:
    """As the config says."""
    if speculation is None:
        return FixedLength(0)
    if speculation.num_speculative_tokens == "auto":
        method = speculation.method
        if speculation.tree_nodes is not None:
            return AdaptiveTree(drafts_cost_passes=False)
        return AdaptiveLength(
            drafts_cost_passes=method in ("draft_model", "eagle"), drafts_are_drawn=method == "draft_model"
        )
    return FixedLength(speculation.num_speculative_tokens)


def max_draft_tokens(speculation: SpeculativeConfig | None) -> int:
    """Most draft tokens that a sequence has verified in a step: a chain's length, or all of a tree."""
    if speculation is not None and speculation.tree_nodes is not None:
        return speculation.tree_nodes
    return make_draft_length(speculation).max_length


class StepCosts:
    """duration = base + per_token * tokens + per_pass * drafting passes, by least squares over the latest steps.

    A guess stands in for what the steps do not vary: half a step is base, 64 further tokens or 4 passes double it.
    Sums are plain floats: a step lasts some hundred microseconds, and numpy's calls would take a tenth of them.
    """

    def __init__(self) -> None:
        self._weight = self._tokens = self._passes = self._seconds = 0.0
        self._tokens_tokens = self._tokens_passes = self._passes_passes = 0.0
        self._tokens_seconds = self._passes_seconds = 0.0
        self._num_steps = 0
        self._fitted = (0.0, 0.0)

    def add(self, num_tokens: int, num_passes: int, duration_s: float) -> None:
        self._weight = _FORGET * self._weight + 1
        self._tokens = _FORGET * self._tokens + num_tokens
        self._passes = _FORGET * self._passes + num_passes
        self._seconds = _FORGET * self._seconds + duration_s
        self._tokens_tokens = _FORGET * self._tokens_tokens + num_tokens * num_tokens
        self._tokens_passes = _FORGET * self._tokens_passes + num_tokens * num_passes
        self._passes_passes = _FORGET * self._passes_passes + num_passes * num_passes
        self._tokens_seconds = _FORGET * self._tokens_seconds + num_tokens * duration_s
        self._passes_seconds = _FORGET * self._passes_seconds + num_passes * duration_s
        if self._num_steps % _FIT_EVERY == 0:
            self._fitted = self._fit()
        self._num_steps += 1

    def fitted(self) -> tuple[float, float]:
        """Seconds per token and per pass; never negative."""
        return self._fitted

    def _fit(self) -> tuple[float, float]:
        mean_s, tokens, passes = (total / self._weight for total in (self._seconds, self._tokens, self._passes))
        gram = np.array(
            [
                [self._weight, self._tokens, self._passes],
                [self._tokens, self._tokens_tokens, self._tokens_passes],
                [self._passes, self._tokens_passes, self._passes_passes],
            ]
        )
        moment = np.array([self._seconds, self._tokens_seconds, self._passes_seconds])
        for row, factor in (
            ((1, tokens, passes), 1.0),
            ((1, tokens + 4, passes), 1 + 4 / 64),
            ((1, tokens, passes + 1), 1 + 1 / 4),
        ):
            gram += _PRIOR_WEIGHT * np.outer(row, row)
            moment += _PRIOR_WEIGHT * factor * mean_s * np.array(row)
        _, per_token, per_pass = np.linalg.solve(gram, moment)
        return max(float(per_token), mean_s / 1000), max(float(per_pass), 0.0)
