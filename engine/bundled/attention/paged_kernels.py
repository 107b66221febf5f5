"""Triton kernels: attention of short queries over paged keys and values, without gathering them first.

Flash-Decoding (Dao et al. 2023): the context of each sequence is cut into splits that are computed side by side, each
with an online softmax (Milakov and Gimelshein 2018), and a second kernel adds them up. The query heads that share a KV
head are folded into the rows of one product. Every length is read from the device, so that a CUDA graph of the launch
serves any context. Does not know batches or caches beyond their tensors.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE: Final = 64  # positions read at once
FEWEST_ROWS: Final = 16  # of a matrix product on tensor cores
AS_COMPUTED, INT8, FP8 = range(3)


class ShortQueries(NamedTuple):
    """Sequences with few tokens each, int32 on the device. A token sees itself and everything before it."""

    firsts: Tensor  # [S] row of each sequence's first token
    lengths: Tensor  # [S] tokens; 0 is none
    contexts: Tensor  # [S] tokens in the cache, its own included
    block_tables: Tensor  # [S, most blocks]


class Cached(NamedTuple):
    """One layer's keys and values: codes [2 * Hkv, num_blocks, block_size, D], keys first, scales without the D."""

    codes: Tensor
    scales: Tensor | None
    form: int  # AS_COMPUTED, INT8 or FP8


def attend_short(
    query: Tensor, cached: Cached, short: ShortQueries, out: Tensor, *, max_length: int, num_splits: int
) -> None:
    """Write the attention of the sequences' tokens into their rows of out [N, Hq, D].

    Args:
        query: [N, Hq, D]; the last dimension is dense.
        max_length: tokens of a sequence at most.
        num_splits: parts of a context computed side by side.
    """
    num_sequences, num_heads, dim = len(short.firsts), query.shape[1], query.shape[2]
    num_kv_heads, num_blocks, block_size = cached.codes.shape[0] // 2, cached.codes.shape[1], cached.codes.shape[2]
    group = num_heads // num_kv_heads
    rows = max(FEWEST_ROWS, triton.next_power_of_2(group * max_length))
    shape = (num_sequences, num_kv_heads, num_splits, rows)
    part = torch.empty(*shape, dim, dtype=torch.float32, device=query.device)
    top, total = (torch.empty(shape, dtype=torch.float32, device=query.device) for _ in range(2))
    scales = cached.codes if cached.scales is None else cached.scales
    sizes: dict[str, Any] = {"GROUP": group, "ROWS": rows, "DIM": dim, "NUM_SPLITS": num_splits}
    _attend_split[(num_sequences, num_kv_heads, num_splits)](
        query, cached.codes, scales, *short, part, top, total,
        dim**-0.5, query.stride(0), query.stride(1), short.block_tables.stride(0), num_blocks,
        BLOCK_SIZE=block_size, NUM_KV_HEADS=num_kv_heads, FORM=cached.form, TILE=TILE, **sizes,
    )  # fmt: skip
    _add_splits[(num_sequences, num_kv_heads)](
        part, top, total, short.firsts, short.lengths, out, out.stride(0), out.stride(1), **sizes
    )


@triton.jit
def _attend_split(
    query, codes, scales, firsts, lengths, contexts, block_tables, part, top, total,
    scale, query_token, query_head, table_row, num_blocks,
    GROUP: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr, NUM_SPLITS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, NUM_KV_HEADS: tl.constexpr, FORM: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """One split of one sequence and KV head: its unnormalized sum [ROWS, DIM], greatest score and sum of weights."""
    sequence, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length, context = tl.load(lengths + sequence), tl.load(contexts + sequence)
    row = tl.arange(0, ROWS)
    token, member = row // GROUP, row % GROUP
    dims, offsets = tl.arange(0, DIM), tl.arange(0, TILE)
    is_real = token < length
    rows_of = (tl.load(firsts + sequence) + token).to(tl.int64) * query_token + (head * GROUP + member) * query_head
    q = tl.load(query + rows_of[:, None] + dims[None, :], mask=is_real[:, None], other=0.0)
    last_seen = context - length + token
    per_split = tl.cdiv(tl.cdiv(context, NUM_SPLITS), TILE) * TILE
    begin = split * per_split
    end = tl.minimum(begin + per_split, context)
    best = tl.full([ROWS], float("-inf"), tl.float32)
    weight = tl.zeros([ROWS], tl.float32)
    summed = tl.zeros([ROWS, DIM], tl.float32)
    for start in range(begin, end, TILE):
        place = start + offsets
        there = place < end
        block = tl.load(block_tables + sequence * table_row + place // BLOCK_SIZE, mask=there, other=0)
        slot = block.to(tl.int64) * BLOCK_SIZE + place % BLOCK_SIZE
        key_slot = head.to(tl.int64) * num_blocks * BLOCK_SIZE + slot
        value_slot = (NUM_KV_HEADS + head).to(tl.int64) * num_blocks * BLOCK_SIZE + slot
        key = _read(codes, scales, key_slot, there, dims, FORM, DIM).to(q.dtype)
        scores = tl.dot(q, tl.trans(key), input_precision="ieee") * scale
        seen = there[None, :] & (place[None, :] <= last_seen[:, None]) & is_real[:, None]
        scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(best, tl.max(scores, 1))
        anchor = tl.where(higher == float("-inf"), 0.0, higher)
        shrink = tl.exp(best - anchor)
        weights = tl.exp(scores - anchor[:, None])
        value = _read(codes, scales, value_slot, there, dims, FORM, DIM).to(q.dtype)
        summed = summed * shrink[:, None] + tl.dot(weights.to(q.dtype), value, input_precision="ieee")
        weight = weight * shrink + tl.sum(weights, 1)
        best = higher
    place = ((sequence * NUM_KV_HEADS + head) * NUM_SPLITS + split) * ROWS + row
    tl.store(part + place[:, None] * DIM + dims[None, :], summed)
    tl.store(top + place, best)
    tl.store(total + place, weight)


@triton.jit
def _read(codes, scales, slots, there, dims, FORM: tl.constexpr, DIM: tl.constexpr):
    """Keys or values [TILE, DIM] as they are computed with."""
    stored = tl.load(codes + slots[:, None] * DIM + dims[None, :], mask=there[:, None], other=0)
    if FORM == 1:
        return stored.to(tl.float32) * tl.load(scales + slots, mask=there, other=0.0)[:, None]
    if FORM == 2:
        return stored.to(tl.float8e4nv, bitcast=True).to(tl.float32)
    return stored


@triton.jit
def _add_splits(
    part, top, total, firsts, lengths, out, out_token, out_head,
    GROUP: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr, NUM_SPLITS: tl.constexpr,
):  # fmt: skip
    """The splits of one sequence and KV head, each weighed by its greatest score, divided by the sum of weights."""
    sequence, head = tl.program_id(0), tl.program_id(1)
    row, dims = tl.arange(0, ROWS), tl.arange(0, DIM)
    base = (sequence * tl.num_programs(1) + head) * NUM_SPLITS * ROWS
    best = tl.full([ROWS], float("-inf"), tl.float32)
    for split in range(NUM_SPLITS):
        best = tl.maximum(best, tl.load(top + base + split * ROWS + row))
    anchor = tl.where(best == float("-inf"), 0.0, best)
    weight = tl.zeros([ROWS], tl.float32)
    summed = tl.zeros([ROWS, DIM], tl.float32)
    for split in range(NUM_SPLITS):
        place = base + split * ROWS + row
        share = tl.exp(tl.load(top + place) - anchor)
        weight += share * tl.load(total + place)
        summed += share[:, None] * tl.load(part + place[:, None] * DIM + dims[None, :])
    token, member = row // GROUP, row % GROUP
    is_real = token < tl.load(lengths + sequence)
    rows_of = (tl.load(firsts + sequence) + token).to(tl.int64) * out_token + (head * GROUP + member) * out_head
    averaged = summed / tl.where(weight == 0.0, 1.0, weight)[:, None]
    tl.store(out + rows_of[:, None] + dims[None, :], averaged.to(out.dtype.element_ty), mask=is_real[:, None])
