"""Attention by gathering each sequence's blocks into one padded tensor, for any device.

Does not know the model. Short queries (decoding, verification) fold the query heads of one KV head into the
query length and use plain batched products; long ones (prefill) use PyTorch's fused attention.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.bundled.batch import Batch, Ints, Paths
from engine.bundled.kv_cache import KVCache


class GatheredAttention:
    """Paged attention over groups of sequences with alike query lengths, padded within a group."""

    def __init__(self, cache: KVCache, max_short_query: int) -> None:
        self.cache = cache
        self.max_short_query = max_short_query
        self._slots = torch.empty(0)
        self._groups: list[_Group] = []

    def plan(self, batch: Batch) -> None:
        self._slots = batch.slots
        self._groups = self._make_groups(batch, np.arange(len(batch.lengths)))

    def attend(self, layer: int, query: Tensor, key_value: Tensor) -> Tensor:
        self.cache.write(layer, self._slots, key_value)
        if len(self._groups) == 1 and self._groups[0].is_whole_batch:
            return self._attend_group(self._groups[0], layer, query)
        out = query.new_empty(query.shape[0], query.shape[1] * query.shape[2])  # [N, Hq * D]
        for group in self._groups:
            padded = self._attend_group(group, layer, query.index_select(0, group.query_rows))
            out.index_copy_(0, group.token_rows, padded.index_select(0, group.padded_rows))
        return out

    def _make_groups(self, batch: Batch, members: Ints) -> list[_Group]:
        """All short queries together, long ones with their power of two."""
        lengths = batch.lengths[members]
        kinds = np.where(lengths <= self.max_short_query, 0, np.ceil(np.log2(lengths)).astype(np.int64))
        return [_Group(batch, members[kinds == kind], self) for kind in np.unique(kinds)]

    def _attend_group(self, group: _Group, layer: int, query: Tensor) -> Tensor:
        """Output [B * Q, Hq * D] of padded query [B * Q, Hq, D]."""
        key, value = self._gather(group, layer)  # [Hkv, B, L, D]
        return group.attend(query, key, value)

    def _gather(self, group: _Group, layer: int) -> tuple[Tensor, Tensor]:
        gathered = self.cache.read(layer, group.blocks)
        key_value = gathered.view(2, self.cache.num_kv_heads, group.num_sequences, -1, self.cache.head_dim)
        return key_value[0], key_value[1]


class _Group:
    """Sequences padded to one query length Q and one context length L."""

    def __init__(self, batch: Batch, members: Ints, attention: GatheredAttention) -> None:
        cache, device, dtype = attention.cache, batch.slots.device, attention.cache.dtype
        lengths, starts = batch.lengths[members], batch.starts[members]
        self.num_sequences = len(members)
        self.num_queries = int(lengths.max())
        self.num_kv_heads, self.head_dim = cache.num_kv_heads, cache.head_dim
        num_blocks = -(-int((starts + lengths).max()) // cache.block_size)
        self.is_short = self.num_queries <= attention.max_short_query
        self.is_causal = not self.is_short and not starts.any() and batch.paths is None
        self.is_whole_batch = len(members) == len(batch.lengths) and bool((lengths == self.num_queries).all())
        self.blocks = torch.from_numpy(batch.block_tables[members, :num_blocks].ravel()).to(device)
        self.mask = torch.empty(0)
        if not self.is_causal:
            self.mask = self._mask(starts, num_blocks * cache.block_size, dtype, device)
            if batch.paths is not None:
                self._hide_other_branches(batch, batch.paths, members)
        self._folded_mask: Tensor | None = None
        if not self.is_whole_batch:
            self._index_rows(batch, members, device)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if self.is_short:
            return self._attend_short(query, key, value)
        return self._attend_long(query, key, value)

    def _mask(self, starts: Ints, length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Additive [B, Q, L]: a query sees its own position and everything before it."""
        last_seen = torch.from_numpy(starts[:, None] + np.arange(self.num_queries)).to(device)  # [B, Q]
        unseen = torch.arange(length, device=device) > last_seen.unsqueeze(-1)
        return torch.zeros(unseen.shape, dtype=dtype, device=device).masked_fill_(unseen, float("-inf"))

    def _hide_other_branches(self, batch: Batch, paths: Paths, members: Ints) -> None:
        """A token of a tree sees of the tree only what leads to it."""
        first_rows = np.cumsum(batch.lengths) - batch.lengths
        for sequence, member in enumerate(members.tolist()):
            for query in range(batch.lengths[member]):
                row = first_rows[member] + query
                if length := paths.lengths[row]:
                    self.mask[sequence, query, paths.starts[row] :] = float("-inf")
                    self.mask[sequence, query, torch.from_numpy(paths.places[row, :length])] = 0.0

    def _index_rows(self, batch: Batch, members: Ints, device: torch.device) -> None:
        """Rows that pad this group's queries and rows that take its outputs back."""
        lengths = batch.lengths[members]
        firsts = (np.cumsum(batch.lengths) - batch.lengths)[members]
        offsets = np.arange(self.num_queries)
        real = offsets < lengths[:, None]  # [B, Q]
        rows = np.where(real, firsts[:, None] + offsets, firsts[:, None]).ravel()
        self.query_rows = torch.from_numpy(rows).to(device)
        self.padded_rows = torch.from_numpy(np.flatnonzero(real.ravel())).to(device)
        self.token_rows = torch.from_numpy(rows[real.ravel()]).to(device)

    def _attend_short(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        heads, size, dim = self.num_kv_heads, self.num_sequences, self.head_dim
        folded = query.view(size, self.num_queries, heads, -1, dim).permute(2, 0, 3, 1, 4)  # [Hkv, B, G, Q, D]
        group = folded.shape[2]
        if self._folded_mask is None:
            mask = self.mask.unsqueeze(1).expand(heads, size, group, *self.mask.shape[1:])
            self._folded_mask = mask.reshape(heads * size, group * self.num_queries, -1)
        scores = torch.baddbmm(
            self._folded_mask,
            folded.reshape(heads * size, group * self.num_queries, dim),
            key.flatten(0, 1).transpose(1, 2),
            alpha=dim**-0.5,
        )  # [Hkv * B, G * Q, L]
        weights = torch.softmax(scores, -1, dtype=torch.float32).to(value.dtype)
        attended = torch.bmm(weights, value.flatten(0, 1)).view(heads, size, group, self.num_queries, dim)
        return attended.permute(1, 3, 0, 2, 4).reshape(size * self.num_queries, -1)

    def _attend_long(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        heads, size, dim = self.num_kv_heads, self.num_sequences, self.head_dim
        queries = query.view(size, self.num_queries, -1, dim).transpose(1, 2)  # [B, Hq, Q, D]
        group = queries.shape[1] // heads
        if self.is_causal:
            key, value = key[:, :, : self.num_queries], value[:, :, : self.num_queries]
        keys, values = (x.transpose(0, 1).repeat_interleave(group, 1) for x in (key, value))  # [B, Hq, L, D]
        mask = None if self.is_causal else self.mask.unsqueeze(1)
        out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=self.is_causal)
        return out.transpose(1, 2).reshape(size * self.num_queries, -1)
