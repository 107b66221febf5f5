"""EAGLE: one decoder layer guesses the target's next hidden state, and with it the next token (Li et al. 2024).

Does not know verification. Place i of the head's cache holds token i with the target's feature of place i - 1, so what
a block of the cache holds depends on the tokens up to its end alone and blocks are shared as the target's are. Drafts
are deterministic, so any drawing stays exact.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import ClassVar

import torch
from torch import Tensor

from engine.bundled.batch import Span
from engine.bundled.head_loader import EagleInput
from engine.bundled.paged_model import Forward, Model
from engine.bundled.sampling import draw_rows, mask_stop_tokens_
from engine.bundled.scheduler import ScheduledSequence
from engine.bundled.sequence import Sequence
from engine.bundled.speculation.draft import Draft
from engine.bundled.speculation.features import ObservedFeatures


class EagleProposer:
    """Catches up on the target's true features, then drafts on its own.

    What it computed from its own features is computed again from the target's, once those are known.
    """

    has_cache: ClassVar[bool] = True
    needs_hidden_states: ClassVar[bool] = True

    def __init__(self, model: Model, inputs: EagleInput, *, block_size: int) -> None:
        self.model = model
        self.inputs = inputs
        self.block_size = block_size
        self._features = ObservedFeatures()
        self._last_of_block: dict[int, Tensor] = {}  # block -> feature [1, H] of its last place

    def propose(self, scheduled: Seq[ScheduledSequence]) -> list[Draft]:
        chains = [_Chain(item) for item in scheduled]
        hidden = self._catch_up(chains)
        growing = [chain for chain in chains if chain.wants_more]
        while growing:
            self._append_best(growing, hidden)
            kept = [row for row, chain in enumerate(growing) if chain.wants_more]
            growing = [growing[row] for row in kept]
            if growing:
                hidden = self._forward([chain.last_span() for chain in growing], hidden[kept]).hidden
        return [Draft.chain(chain.token_ids) for chain in chains]

    def observe(self, scheduled: Seq[ScheduledSequence], forward: Forward) -> None:
        self._features.observe(scheduled, forward)
        for item in scheduled:
            features = self._features.of(item.sequence)
            assert features is not None
            end = features.start + len(features.rows)
            for block in range(features.start // self.block_size, end // self.block_size):
                place = (block + 1) * self.block_size - 1
                self._last_of_block[item.sequence.block_table[block]] = features.at(place, place).clone()

    def finished(self, sequence: Sequence) -> None:
        self._features.forget(sequence)

    def reset(self) -> None:
        self._last_of_block.clear()

    def _catch_up(self, chains: list[_Chain]) -> Tensor:
        """Compute every place whose feature is known; the head's features [.., H] of the chains that draft."""
        spans = [chain.known_span() for chain in chains]
        features = [self._features_before(chain.sequence, span) for chain, span in zip(chains, spans, strict=True)]
        forward = self._forward(spans, torch.cat(features))
        return forward.hidden[
            [row for row, chain in zip(forward.batch.ends.tolist(), chains, strict=True) if chain.wants_more]
        ]

    def _features_before(self, sequence: Sequence, span: Span) -> Tensor:
        """The target's features [n, H] of the places before the span's."""
        first, last = span.start - 1, span.start + len(span.token_ids) - 2
        known = self._features.of(sequence)
        if known is not None and known.start <= first <= last < known.start + len(known.rows):
            return known.at(first, last)
        assert first == last, "only a sequence that was just admitted has no features"
        cached = self._last_of_block.get(sequence.block_table[first // self.block_size]) if first >= 0 else None
        embedding = self.inputs.embedding
        return embedding.new_zeros(1, embedding.shape[1]) if cached is None else cached

    def _forward(self, spans: list[Span], features: Tensor) -> Forward:
        token_ids = torch.tensor([t for span in spans for t in span.token_ids], device=features.device)
        return self.model.forward(spans, self.inputs(token_ids, features))

    def _append_best(self, chains: list[_Chain], hidden: Tensor) -> None:
        logits = self.model.logits(hidden)
        mask_stop_tokens_(
            logits, draw_rows([(c.sequence, c.sequence.num_tokens + len(c.token_ids), 1) for c in chains])
        )
        for chain, token_id in zip(chains, logits.argmax(-1).tolist(), strict=True):
            chain.token_ids.append(token_id)


class _Chain:
    """One sequence's draft while it grows."""

    def __init__(self, item: ScheduledSequence) -> None:
        self.sequence = item.sequence
        self.max_tokens = item.max_draft_tokens
        self.token_ids: list[int] = []

    @property
    def wants_more(self) -> bool:
        return len(self.token_ids) < self.max_tokens

    def known_span(self) -> Span:
        """Places not yet computed from true features, up to the one after the target's last."""
        sequence, start = self.sequence, self.sequence.num_draft_computed_tokens
        end = sequence.num_draft_computed_tokens = sequence.num_computed_tokens + 1
        return Span(sequence.token_ids[start:end], start, sequence.block_table)

    def last_span(self) -> Span:
        """The latest drafted token, to be computed for the next one."""
        start = self.sequence.num_tokens + len(self.token_ids) - 1
        return Span(self.token_ids[-1:], start, self.sequence.block_table)
