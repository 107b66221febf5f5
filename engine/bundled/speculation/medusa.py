"""Medusa: further output heads on the target's hidden state guess the tokens after the next one (Cai et al. 2024).

Does not know verification. Each head's best token makes a chain, or the heads' best tokens a tree; drafts are
deterministic, so any drawing stays exact.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import ClassVar

import torch
from torch import Tensor

from engine.bundled.paged_model import Forward
from engine.bundled.sampling import draw_rows, mask_stop_tokens_
from engine.bundled.scheduler import ScheduledSequence
from engine.bundled.sequence import Sequence
from engine.bundled.speculation.draft import Draft
from engine.bundled.speculation.draft_tree import MAX_RANK, DraftTree, GuessRecord
from engine.bundled.speculation.features import ObservedFeatures

_NO_DRAFT = Draft()
Guesses = list[list[int]]  # of each place the tokens, best first


class MedusaProposer:
    """Reads the hidden state that the last token was drawn from.

    Args:
        heads: float32 logits [k, B, V] of hidden states [B, H] and a number k of heads.
        drafts_trees: whether a draft takes several guesses for a place: those of which the most are expected to be
            kept, from how often guesses were right of late.
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
        self._record = GuessRecord(num_heads, self._num_ranks) if drafts_trees else None
        self._guessed: dict[str, tuple[int, Guesses]] = {}  # by request: the place of the first guess, the guesses

    def propose(self, scheduled: Seq[ScheduledSequence]) -> list[Draft]:
        lengths = [min(item.max_draft_depth, self.num_heads) for item in scheduled]
        drafting = [index for index, length in enumerate(lengths) if length]
        drafts = [_NO_DRAFT] * len(scheduled)
        if not drafting:
            return drafts
        best = self._best([scheduled[index].sequence for index in drafting], max(lengths))
        for index, guesses in zip(drafting, best, strict=True):
            if self._record is None:
                drafts[index] = Draft.chain([ranked[0] for ranked in guesses[: lengths[index]]])
            else:
                self._learn(self._record, scheduled[index].sequence, guesses)
                tree = self._record.tree(scheduled[index].max_draft_tokens, lengths[index])
                drafts[index] = _grown(tree, guesses)
        return drafts

    def observe(self, scheduled: Seq[ScheduledSequence], forward: Forward) -> None:
        self._features.observe(scheduled, forward)

    def finished(self, sequence: Sequence) -> None:
        self._features.forget(sequence)
        self._guessed.pop(sequence.request_id, None)

    def reset(self) -> None:
        if self._record is not None:
            self._record.reset()

    def _learn(self, record: GuessRecord, sequence: Sequence, guesses: Guesses) -> None:
        """Compare the guesses before with what came, and remember these."""
        place, before = self._guessed.get(sequence.request_id, (sequence.num_tokens, []))
        record.add(before, sequence.token_ids[place:])
        self._guessed[sequence.request_id] = (sequence.num_tokens, guesses)

    def _best(self, sequences: Seq[Sequence], num_heads: int) -> list[Guesses]:
        """Each head's best tokens for each sequence."""
        rows = []
        for sequence in sequences:
            features = self._features.of(sequence)
            assert features is not None, "a sequence drafts after its prompt was computed"
            drawn_from = sequence.num_tokens - 2
            rows.append(features.at(drawn_from, drawn_from))
        logits = self.heads(torch.cat(rows) if len(rows) > 1 else rows[0], num_heads)  # [num_heads, B, V]
        logits = logits.transpose(0, 1).flatten(0, 1)  # [B * num_heads, V]
        if any(sequence.num_output_tokens < sequence.params.min_tokens for sequence in sequences):
            mask_stop_tokens_(logits, draw_rows([(sequence, sequence.num_tokens, num_heads) for sequence in sequences]))
        best = logits.argmax(-1) if self._num_ranks == 1 else logits.topk(self._num_ranks, -1).indices
        ranked: list[Guesses] = best.view(len(sequences), num_heads, self._num_ranks).tolist()
        return ranked


def _grown(tree: DraftTree, guesses: Guesses) -> Draft:
    token_ids = tuple(guesses[depth][rank] for depth, rank in zip(tree.depths, tree.ranks, strict=True))
    return Draft(token_ids=token_ids, parents=tree.parents)
