"""Medusa: further output heads on the target's hidden state guess the tokens after the next one (Cai et al. 2024).

Does not know verification. Each head's best token makes a chain; drafts are deterministic, so any drawing stays exact.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import ClassVar

import torch

from engine.bundled.head_loader import MedusaHeads
from engine.bundled.paged_model import Forward
from engine.bundled.sampling import draw_rows, mask_stop_tokens_
from engine.bundled.scheduler import ScheduledSequence
from engine.bundled.sequence import Sequence
from engine.bundled.speculation.draft import Draft
from engine.bundled.speculation.features import ObservedFeatures

_NO_DRAFT = Draft()


class MedusaProposer:
    """Reads the hidden state that the last token was drawn from."""

    has_cache: ClassVar[bool] = False
    needs_hidden_states: ClassVar[bool] = True

    def __init__(self, heads: MedusaHeads) -> None:
        self.heads = heads
        self._features = ObservedFeatures()

    def propose(self, scheduled: Seq[ScheduledSequence]) -> list[Draft]:
        lengths = [min(item.max_draft_tokens, self.heads.num_heads) for item in scheduled]
        drafting = [index for index, length in enumerate(lengths) if length]
        drafts = [_NO_DRAFT] * len(scheduled)
        if not drafting:
            return drafts
        sequences = [scheduled[index].sequence for index in drafting]
        best = self._best(sequences, max(lengths))
        for index, token_ids in zip(drafting, best, strict=True):
            drafts[index] = Draft.chain(token_ids[: lengths[index]])
        return drafts

    def observe(self, scheduled: Seq[ScheduledSequence], forward: Forward) -> None:
        self._features.observe(scheduled, forward)

    def finished(self, sequence: Sequence) -> None:
        self._features.forget(sequence)

    def reset(self) -> None:
        """Nothing outlives a request."""

    def _best(self, sequences: Seq[Sequence], num_heads: int) -> list[list[int]]:
        """Each head's best token for each sequence."""
        rows = []
        for sequence in sequences:
            features = self._features.of(sequence)
            assert features is not None, "a sequence drafts after its prompt was computed"
            drawn_from = sequence.num_tokens - 2
            rows.append(features.at(drawn_from, drawn_from))
        logits = self.heads(torch.cat(rows), num_heads).transpose(0, 1).flatten(0, 1)  # [B * num_heads, V]
        mask_stop_tokens_(logits, draw_rows([(sequence, sequence.num_tokens, num_heads) for sequence in sequences]))
        best: list[list[int]] = logits.argmax(-1).view(len(sequences), num_heads).tolist()
        return best
