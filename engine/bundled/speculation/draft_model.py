"""Draft-model speculation: a small model drafts, with its own cache under the target's block tables.

Does not know verification. Because both caches share block tables, prefix sharing, preemption and rollback need
no second bookkeeping: each sequence only carries how many tokens the draft has computed.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import ClassVar

import torch
from torch import Tensor

from engine.bundled.batch import Span
from engine.bundled.paged_model import Forward, Model
from engine.bundled.sampling import Stream, draw, draw_rows, mask_stop_tokens_, probabilities, uniforms
from engine.bundled.scheduler import ScheduledSequence
from engine.bundled.sequence import Sequence
from engine.bundled.speculation.draft import Draft


class DraftModelProposer:
    """Drafts greedily for greedy requests and draws from the draft's distribution for the others.

    The last of k drafts is proposed but not computed, so after full acceptance the draft lags one token behind.
    """

    has_cache: ClassVar[bool] = True
    needs_hidden_states: ClassVar[bool] = False

    def __init__(self, model: Model) -> None:
        self.model = model

    def propose(self, scheduled: Seq[ScheduledSequence]) -> list[Draft]:
        chains = [_Chain(item) for item in scheduled]
        logits = self._catch_up(chains)
        growing = [chain for chain in chains if chain.wants_more]
        while growing:
            self._draw(growing, logits)
            growing = [chain for chain in growing if chain.wants_more]
            if growing:
                forward = self.model.forward([chain.last_span() for chain in growing])
                logits = self.model.logits(forward.hidden)
        return [chain.draft() for chain in chains]

    def observe(self, scheduled: Seq[ScheduledSequence], forward: Forward) -> None:  # noqa: ARG002
        raise AssertionError("a draft model reads no hidden states")

    def finished(self, sequence: Sequence) -> None:
        """Its cache goes with the target's blocks."""

    def reset(self) -> None:
        """Nothing outlives a request but cached blocks."""

    def _catch_up(self, chains: list[_Chain]) -> Tensor:
        """Compute what the target computes this step and all the draft still lacks; logits of those that draft."""
        forward = self.model.forward([chain.missing_span() for chain in chains])
        rows = [row for row, chain in zip(forward.batch.ends.tolist(), chains, strict=True) if chain.wants_more]
        return self.model.logits(forward.hidden[rows]) if rows else forward.hidden

    def _draw(self, chains: list[_Chain], logits: Tensor) -> None:
        """Append one token to each chain from logits [len(chains), V]; rows of finished chains are gone."""
        rows = draw_rows([(c.sequence, c.sequence.num_tokens + len(c.token_ids), 1) for c in chains])
        mask_stop_tokens_(logits, rows)
        if rows.all_greedy:
            for chain, token_id in zip(chains, logits.argmax(-1).tolist(), strict=True):
                chain.token_ids.append(token_id)
            return
        weights = probabilities(logits, rows)
        token_ids = draw(weights, uniforms(rows, Stream.DRAFT)).tolist()
        for chain, token_id, distribution in zip(chains, token_ids, weights, strict=True):
            chain.token_ids.append(token_id)
            chain.distributions.append(distribution)


class _Chain:
    """One sequence's draft while it grows."""

    def __init__(self, item: ScheduledSequence) -> None:
        self.sequence = item.sequence
        self.max_tokens = item.max_draft_tokens
        self.end = self.sequence.num_computed_tokens + item.num_tokens
        self.token_ids: list[int] = []
        self.distributions: list[Tensor] = []

    @property
    def wants_more(self) -> bool:
        return len(self.token_ids) < self.max_tokens

    def missing_span(self) -> Span:
        sequence, start = self.sequence, self.sequence.num_draft_computed_tokens
        sequence.num_draft_computed_tokens = self.end
        return Span(sequence.token_ids[start : self.end], start, sequence.block_table)

    def last_span(self) -> Span:
        """The latest drafted token, to be computed for the next one."""
        start = self.sequence.num_draft_computed_tokens
        self.sequence.num_draft_computed_tokens += 1
        return Span(self.token_ids[-1:], start, self.sequence.block_table)

    def draft(self) -> Draft:
        drawn = bool(self.distributions) and not self.sequence.params.is_greedy
        return Draft.chain(self.token_ids, torch.stack(self.distributions) if drawn else None)
