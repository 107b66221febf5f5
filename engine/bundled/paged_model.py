"""`PagedModel`: a decoder with its paged cache and attention, fed with spans of tokens.

Does not know whether it is the target or a draft.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from engine.bundled.attention import ATTENTION
from engine.bundled.batch import Batch, Moves, Span, pack
from engine.bundled.kv_cache import KVCache
from engine.bundled.loader import LoadedModel
from engine.bundled.lora.low_rank import AdapterRows
from engine.bundled.transformer import Decoder
from engine.config import KvCacheFormat


class Forward(NamedTuple):
    """What one pass computed: hidden states [N, hidden] of the batch's packed tokens."""

    batch: Batch
    hidden: Tensor


class Model(Protocol):
    """A network over paged keys and values: computed eagerly (`PagedModel`) or compiled (`FusedModel`)."""

    def forward(self, spans: Seq[Span], inputs: Tensor | None = None) -> Forward: ...

    def logits(self, hidden: Tensor) -> Tensor: ...

    def move(self, moves: Moves) -> None: ...


class PagedModel:
    """One network whose keys and values live in blocks that the block manager hands out."""

    def __init__(
        self,
        model: LoadedModel,
        *,
        num_blocks: int,
        block_size: int,
        max_short_query: int,
        kv_format: KvCacheFormat = "bf16",
        attention: str = "gathered",
        adapter_rows: AdapterRows | None = None,
    ) -> None:
        """`adapter_rows`: of the decoder's `LoraLinear` layers, where it has any."""
        self._adapter_rows = adapter_rows
        self.decoder: Decoder = model.decoder
        self.device = model.decoder.embed_tokens.weight.device
        self.block_size = block_size
        cache = KVCache(
            model.config, num_blocks, block_size, dtype=model.dtype, device=self.device, kv_format=kv_format
        )
        self._cache = cache
        self.attention = ATTENTION[attention](cache, max_short_query)

    def forward(self, spans: Seq[Span], inputs: Tensor | None = None) -> Forward:
        """Write the spans' keys and values and return their hidden states.

        Args:
            inputs: [N, hidden] in place of the packed tokens' embeddings.
        """
        batch = pack(spans, self.block_size, self.device)
        self.attention.plan(batch)
        if self._adapter_rows is not None:
            self._adapter_rows.set(batch.adapters, batch.lengths, self.device)
        hidden: Tensor = self.decoder(batch.token_ids, batch.positions, self.attention, inputs)
        return Forward(batch, hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits [N, V]."""
        return self.decoder.logits(hidden)

    def move(self, moves: Moves) -> None:
        """Copy keys and values within the cache."""
        self._cache.move(*(torch.tensor(slots, device=self.device) for slots in moves))
