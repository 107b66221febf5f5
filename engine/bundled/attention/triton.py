"""Attention whose short queries read their pages in place (Triton, CUDA); long ones are gathered.

Does not know the model. `plan` lays a step's indices on the device; `plan_short` takes indices that are already there
and keep their addresses, which is what a CUDA graph needs.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from engine.bundled.attention.gathered import GatheredAttention
from engine.bundled.attention.paged_kernels import AS_COMPUTED, FP8, INT8, Cached, ShortQueries, attend_short
from engine.bundled.batch import Batch
from engine.bundled.kv_cache import KVCache
from engine.config import KvCacheFormat

MOST_SPLITS: Final = 32
_FORMS: Final[dict[KvCacheFormat, int]] = {"bf16": AS_COMPUTED, "int8": INT8, "fp8": FP8}
_TOKENS_A_SPLIT: Final = 256  # fewer are not worth a program of their own


class TritonAttention(GatheredAttention):
    """As `GatheredAttention`, but for sequences with at most `max_short_query` tokens in a step."""

    def __init__(self, cache: KVCache, max_short_query: int) -> None:
        super().__init__(cache, max_short_query)
        self._short: ShortQueries | None = None
        self._max_length = 1
        self._num_splits = 1

    def plan(self, batch: Batch) -> None:
        is_short = (batch.lengths <= self.max_short_query) & (batch.paths is None)  # the kernels know no trees
        short, long = np.flatnonzero(is_short), np.flatnonzero(~is_short)
        self._slots = batch.slots
        self._groups = self._make_groups(batch, long)
        self._short = None
        if len(short):
            device = batch.slots.device
            firsts, contexts = (batch.ends - batch.lengths + 1)[short], (batch.starts + batch.lengths)[short]
            indices = (firsts, batch.lengths[short], contexts, batch.block_tables[short])
            self._short = ShortQueries(*(torch.from_numpy(one.astype(np.int32)).to(device) for one in indices))
            self._max_length = int(batch.lengths[short].max())
            self._num_splits = choose_num_splits(int(contexts.max()), len(short) * self.cache.num_kv_heads, device)

    def plan_short(self, slots: Tensor, short: ShortQueries, *, max_length: int, num_splits: int) -> None:
        """A step of short queries alone; the tensors are read when `attend` runs, or its graph is replayed.

        Args:
            slots: [N] where each token's keys and values are written.
        """
        self._slots, self._groups = slots, []
        self._short, self._max_length, self._num_splits = short, max_length, num_splits

    def attend(self, layer: int, query: Tensor, key_value: Tensor) -> Tensor:
        if self._short is None:
            return super().attend(layer, query, key_value)
        self.cache.write(layer, self._slots, key_value)
        out = torch.zeros(query.shape, dtype=query.dtype, device=query.device)
        attend_short(
            query,
            self._cached(layer),
            self._short,
            out,
            max_length=self._max_length,
            num_splits=self._num_splits,
        )
        flat = out.flatten(1)  # [N, Hq * D]
        for group in self._groups:
            padded = self._attend_group(group, layer, query.index_select(0, group.query_rows))
            flat.index_copy_(0, group.token_rows, padded.index_select(0, group.padded_rows))
        return flat

    def _cached(self, layer: int) -> Cached:
        stored = self.cache.stored(layer)
        return Cached(stored.codes, stored.scales, _FORMS[self.cache.kv_format])


def choose_num_splits(context: int, num_programs: int, device: torch.device) -> int:
    """So many that every multiprocessor has two programs, as long as each split is worth one; a power of two."""
    wanted = -(-2 * _num_multiprocessors(device) // num_programs)
    most = min(MOST_SPLITS, max(1, wanted), -(-context // _TOKENS_A_SPLIT))
    return 1 << (max(1, most).bit_length() - 1)


def _num_multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
