"""Medusa: further output heads on the target's hidden state guess the tokens after the next one (Cai et al. 2024).

Does not know verification. Each head's best token makes a chain, or the heads' best tokens a tree; drafts are
deterministic, so any drawing stays exact.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from engine.bundled.head_loader import Best
from engine.bundled.paged_model import Forward
from engine.bundled.scheduler import ScheduledSequence
from engine.bundled.sequence import Sequence
from engine.bundled.speculation.draft import Draft
from engine.bundled.speculation.draft_tree import MAX_RANK, GuessRecord, choose_tree
from engine.bundled.speculation.features import ObservedFeatures

_NO_DRAFT = Draft()


class Heads(Protocol):
    """Heads that say their best guesses: `MedusaHeads`, or compiled `FusedHeads`."""

    def best(self, hidden: Tensor, num_heads: int, num_ranks: int) -> Best: ...


class Guesses(NamedTuple):
    """Of each place after the next token: the likeliest tokens, best first, and the head's probabilities of them."""

    token_ids: list[list[int]]
    probabilities: list[list[float]]


class MedusaProposer:
    """Reads the hidden state that the last token was drawn from.

    Args:
        drafts_trees: whether a draft may take several guesses for a place, and only those that pay.
    """

    has_cache: ClassVar[bool] = False
    needs_hidden_states: ClassVar[bool] = True

    def __init__(self, heads: Heads, *, num_heads: int, vocab_size: int, drafts_trees: bool) -> None:
        self.heads = heads
        self.num_heads = num_heads
        self.vocab_size = vocab_size
        self._num_ranks = min(MAX_RANK, vocab_size) if drafts_trees else 1
        self._features = ObservedFeatures()
        self._record = GuessRecord(num_heads) if drafts_trees else None
        self._guessed: dict[str, tuple[int, Guesses]] = {}  # by request: the place of the first guess, the guesses

    def propose(self, scheduled: Seq[ScheduledSequence]) -> list[Draft]:
        lengths = [min(item.max_draft_depth, self.num_heads) for item in scheduled]
        drafting = [index for index, length in enumerate(lengths) if length]
        drafts = [_NO_DRAFT] * len(scheduled)
        if not drafting:
            return drafts
        best = self._guesses([scheduled[index].sequence for index in drafting], max(lengths))
        for index, guesses in zip(drafting, best, strict=True):
            if self._record is None:
                drafts[index] = Draft.chain([ranked[0] for ranked in guesses.token_ids[: lengths[index]]])
            else:
                drafts[index] = self._tree(self._record, scheduled[index], guesses, lengths[index])
        return drafts

    def observe(self, scheduled: Seq[ScheduledSequence], forward: Forward) -> None:
        self._features.observe(scheduled, forward)

    def finished(self, sequence: Sequence) -> None:
        self._features.forget(sequence)
        self._guessed.pop(sequence.request_id, None)

    def reset(self) -> None:
        if self._record is not None:
            self._record.reset()

    def _tree(self, record: GuessRecord, item: ScheduledSequence, guesses: Guesses, max_depth: int) -> Draft:
        """Learn from the sequence's guesses before, then grow its tree."""
        sequence = item.sequence
        if sequence.request_id in self._guessed:
            place, before = self._guessed[sequence.request_id]
            record.add(*before, sequence.token_ids[place:])
        self._guessed[sequence.request_id] = (sequence.num_tokens, guesses)
        chances = record.chances(guesses.probabilities[:max_depth])
        tree = choose_tree(chances, item.max_draft_tokens, min_chance=item.min_draft_chance)
        picks = zip(tree.depths, tree.ranks, strict=True)
        return Draft(token_ids=tuple(guesses.token_ids[depth][rank] for depth, rank in picks), parents=tree.parents)

    def _guesses(self, sequences: Seq[Sequence], num_heads: int) -> list[Guesses]:
        """Each head's for each sequence, stop tokens left out where they may not come yet."""
        rows = []
        for sequence in sequences:
            features = self._features.of(sequence)
            assert features is not None, "a sequence drafts after its prompt was computed"
            drawn_from = sequence.num_tokens - 2
            rows.append(features.at(drawn_from, drawn_from))
        num_masked = max(len(sequence.masked_token_ids) * _masks_stops(sequence, 0) for sequence in sequences)
        num_ranks = min(self.vocab_size, self._num_ranks + num_masked)
        best = self.heads.best(torch.cat(rows) if len(rows) > 1 else rows[0], num_heads, num_ranks)
        found = []
        for row, sequence in enumerate(sequences):
            guesses = Guesses([ids[row] for ids in best.token_ids], [shares[row] for shares in best.probabilities])
            found.append(_allowed(guesses, sequence) if num_masked else guesses)
        return found


def _masks_stops(sequence: Sequence, place: int) -> bool:
    """Whether so many places after the next token `min_tokens` is not yet reached."""
    return sequence.num_output_tokens + place < sequence.params.min_tokens


def _allowed(guesses: Guesses, sequence: Sequence) -> Guesses:
    """The guesses without stop tokens where those are masked; where nothing else is left, they stay."""
    found = Guesses([], [])
    for place, (ids, shares) in enumerate(zip(*guesses, strict=True)):
        masked = sequence.masked_token_ids if _masks_stops(sequence, place) else ()
        kept = [rank for rank, token_id in enumerate(ids) if token_id not in masked] or [0]
        found.token_ids.append([ids[rank] for rank in kept])
        found.probabilities.append([shares[rank] for rank in kept])
    return found
