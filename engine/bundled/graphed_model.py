"""`GraphedModel`: a `PagedModel` whose steps of short queries are replayed as CUDA graphs.

A decode step of a small batch is bound by the launch of its kernels; a graph launches them all at once. Sequences and
tokens a sequence are padded up to a size that was captured. Padding writes to a block of its own and is read by nobody.
Other steps (prefill, given inputs, token trees, adapters, more sequences) go the eager way. Does not know speculation.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.bundled.attention.paged_kernels import ShortQueries
from engine.bundled.attention.triton import TritonAttention, choose_num_splits
from engine.bundled.batch import Batch, Moves, Span, pack
from engine.bundled.kv_cache import KVCache
from engine.bundled.paged_model import Forward, PagedModel

Run = Callable[[], Tensor]
SIZES: Final = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)  # sequences in a graph
_WARM_UPS: Final = 2


class GraphedModel:
    """Captures one graph per number of sequences and of tokens a sequence when it is made.

    Args:
        model: with `TritonAttention`; its cache has one block more than the block manager hands out, the last.
        max_num_seqs: sequences in a step at most.
        lengths: tokens a sequence, ascending; 1 is plain decoding, 1 + k verification of k drafts.
        capture: turns a computation on tensors that keep their addresses into its replay.
    """

    def __init__(
        self,
        model: PagedModel,
        *,
        max_num_seqs: int,
        max_model_len: int,
        lengths: Seq[int],
        capture: Callable[[Run], Run] | None = None,
    ) -> None:
        assert isinstance(model.attention, TritonAttention)
        self.model, self._attention = model, model.attention
        self._sizes = [size for size in SIZES if size < max_num_seqs] + [min(max_num_seqs, SIZES[-1])]
        self._lengths = sorted(set(lengths))
        self._buffers = _Buffers(model.attention.cache, self._sizes[-1], self._lengths[-1], max_model_len)
        self._max_model_len = max_model_len
        self._capture = capture or CudaCapture()
        self._steps = {
            (size, length): self._captured(size, length)
            for size in reversed(self._sizes)  # the largest first: smaller ones fit into its memory
            for length in self._lengths
        }

    def forward(self, spans: Seq[Span], inputs: Tensor | None = None) -> Forward:
        """As `PagedModel.forward`."""
        longest = max(len(span.token_ids) for span in spans)
        is_plain = inputs is None and not any(span.parents or span.adapter >= 0 for span in spans)
        if not is_plain or longest > self._lengths[-1] or len(spans) > self._sizes[-1]:
            return self.model.forward(spans, inputs)
        size = next(size for size in self._sizes if size >= len(spans))
        length = next(length for length in self._lengths if length >= longest)
        batch = pack(spans, self.model.block_size, self.model.device)
        rows = self._buffers.fill(batch, size, length)
        hidden = self._steps[size, length]()
        return Forward(batch, hidden.index_select(0, rows))

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits [N, V]."""
        return self.model.logits(hidden)

    def move(self, moves: Moves) -> None:
        """Copy keys and values within the cache."""
        self.model.move(moves)

    @torch.inference_mode()
    def _captured(self, size: int, length: int) -> Run:
        view = self._buffers.view(size, length)
        heads = size * self._attention.cache.num_kv_heads
        num_splits = choose_num_splits(self._max_model_len, heads, self.model.device)

        def run() -> Tensor:
            self._attention.plan_short(view.slots, view.short, max_length=length, num_splits=num_splits)
            hidden: Tensor = self.model.decoder(view.token_ids, view.positions, self._attention, None)
            return hidden

        self._buffers.clear()
        return self._capture(run)


class CudaCapture:
    """Graphs that share one pool of memory: never replay two at once."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Run) -> Run:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            hidden = run()

        def replay() -> Tensor:
            graph.replay()
            return hidden

        return replay


class _View(NamedTuple):
    """The buffers' part for so many sequences of so many tokens."""

    token_ids: Tensor  # [size * length]
    positions: Tensor
    slots: Tensor
    short: ShortQueries


class _Buffers:
    """Inputs whose addresses never change, and their padding."""

    def __init__(self, cache: KVCache, max_size: int, max_length: int, max_model_len: int) -> None:
        device = cache.device
        self._block_size, self._padding_block = cache.block_size, cache.num_blocks - 1
        self._width = -(-max_model_len // cache.block_size)
        self._tokens = torch.zeros(3, max_size * max_length, dtype=torch.int64, device=device)
        self._sequences = torch.zeros(3, max_size, dtype=torch.int32, device=device)
        self._tables = torch.zeros(max_size, self._width, dtype=torch.int32, device=device)
        self.clear()

    def clear(self) -> None:
        """Nothing but padding."""
        self._tokens[:2] = 0
        self._tokens[2] = self._padding_block * self._block_size
        self._sequences[:2] = 0
        self._sequences[2] = 1
        self._tables.fill_(self._padding_block)

    def view(self, size: int, length: int) -> _View:
        token_ids, positions, slots = (row[: size * length] for row in self._tokens)
        firsts, lengths, contexts = (row[:size] for row in self._sequences)
        return _View(token_ids, positions, slots, ShortQueries(firsts, lengths, contexts, self._tables[:size]))

    def fill(self, batch: Batch, size: int, length: int) -> Tensor:
        """Lay the batch out with `length` rows a sequence; the rows [N] that are its tokens."""
        count, device = len(batch.lengths), batch.slots.device
        offsets = np.arange(len(batch.slots)) - np.repeat(batch.ends - batch.lengths + 1, batch.lengths)
        laid = np.repeat(np.arange(count) * length, batch.lengths) + offsets
        rows = torch.from_numpy(laid).to(device)
        tokens = self._tokens[:, : size * length]
        tokens[:2] = 0
        tokens[2] = self._padding_block * self._block_size
        tokens.index_copy_(1, rows, torch.stack((batch.token_ids, batch.positions, batch.slots)))
        sequences = np.zeros((3, size), np.int32)
        sequences[0] = np.arange(size) * length
        sequences[1, :count] = batch.lengths
        sequences[2] = 1
        sequences[2, :count] = batch.starts + batch.lengths
        self._sequences[:, :size].copy_(torch.from_numpy(sequences))
        width = batch.block_tables.shape[1]
        self._tables[:count, :width].copy_(torch.from_numpy(batch.block_tables.astype(np.int32)))
        return rows
