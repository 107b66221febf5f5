"""Medusa: further output heads on the target's hidden state guess the tokens after the next one (Cai et al. 2024).

Does not know verification. Each head's best token makes a chain, or the heads' best tokens a tree; drafts are
deterministic, so any drawing stays exact.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from engine.bundled.paged_model import Forward
from engine.bundled.sampling import draw_rows, mask_stop_tokens_
from engine.bundled.scheduler import ScheduledSequence
from engine.bundled.sequence import Sequence
from engine.bundled.speculation.draft import Draft
from engine.bundled.speculation.draft_tree import MAX_RANK, GuessRecord, choose_tree
from engine.bundled.speculation.features import ObservedFeatures

_NO_DRAFT = Draft()


class Guesses(NamedTuple):
    """Of each place after the next token: the likeliest tokens, best first, and the head's probabilities of them."""

    token_ids: list[list[int]]
    probabilities: list[list[float]]


class MedusaProposer:
    """Reads the hidden state that the last token was drawn from.

    Args:
        heads: float32 logits [k, B, V] of hidden states [B, H] and a number k of heads.
        drafts_trees: whether a draft may take several guesses for a place, and only those that pay.
    """

    has_cache: ClassVar[bool] = False
    needs_hidden_states: ClassVar[bool] = True

    def __init__(
        self, heads: Callable[[Tensor, int], Tensor], *, num_heads: int, vocab_size: int, drafts_trees: bool
    ) -> None:
        self.heads = heads
        self.num_heads = num_heads
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
        logits = self._logits([scheduled[index].sequence for index in drafting], max(lengths))
        if self._record is None:
            for index, best in zip(drafting, logits.argmax(-1).tolist(), strict=True):
                drafts[index] = Draft.chain(best[: lengths[index]])
            return drafts
        for index, guesses in zip(drafting, _guesses(logits, self._num_ranks), strict=True):
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

    def _logits(self, sequences: Seq[Sequence], num_heads: int) -> Tensor:
        """Of each head for each sequence, [B, num_heads, V]."""
        rows = []
        for sequence in sequences:
            features = self._features.of(sequence)
            assert features is not None, "a sequence drafts after its prompt was computed"
            drawn_from = sequence.num_tokens - 2
            rows.append(features.at(drawn_from, drawn_from))
        logits = self.heads(torch.cat(rows) if len(rows) > 1 else rows[0], num_heads).transpose(0, 1)
        if any(sequence.num_output_tokens < sequence.params.min_tokens for sequence in sequences):
            logits = logits.contiguous()
            mask_stop_tokens_(
                logits.view(-1, logits.shape[-1]),
                draw_rows([(sequence, sequence.num_tokens, num_heads) for sequence in sequences]),
            )
        return logits


def _guesses(logits: Tensor, num_ranks: int) -> list[Guesses]:
    """The best tokens of each sequence and head, from logits [B, num_heads, V]."""
    best = logits.topk(num_ranks, -1)
    probabilities = (best.values - logits.logsumexp(-1, keepdim=True)).exp_()
    return [Guesses(*pair) for pair in zip(best.indices.tolist(), probabilities.tolist(), strict=True)]
