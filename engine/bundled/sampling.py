"""Drawing tokens: temperature, top-k, top-p and counter-based random numbers; log-probabilities.

Does not know batches or speculation's verdicts. A uniform number is a hash of (seed, position, stream), so what a
request draws depends on nothing but itself: not on its neighbours, preemption or how many tokens a step verifies.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.bundled.outputs import TokenLogprob
from engine.bundled.sequence import Sequence

_LOGPROB_ROWS = 512  # rows of [*, V] float32 alive at once


class Stream(IntEnum):
    """Independent random numbers of one position."""

    DRAW = 0
    ACCEPT = 1
    RESIDUAL = 2
    DRAFT = 3


class DrawRows(NamedTuple):
    """R distributions to draw from: row r is the token at `positions[r]` of its sequence."""

    temperatures: npt.NDArray[np.float32]
    top_ks: npt.NDArray[np.int64]
    top_ps: npt.NDArray[np.float32]
    seeds: npt.NDArray[np.uint64]
    positions: npt.NDArray[np.uint64]
    masked_rows: list[int]  # pairs with masked_token_ids: stop tokens before min_tokens
    masked_token_ids: list[int]

    @property
    def all_greedy(self) -> bool:
        return not self.temperatures.any()

    @property
    def filters(self) -> bool:
        return bool(self.top_ks.any() or (self.top_ps < 1).any())


def draw_rows(items: Seq[tuple[Sequence, int, int]]) -> DrawRows:
    """Rows for each (sequence, position of its first row, number of rows)."""
    return draw_rows_at([(sequence, range(first, first + count)) for sequence, first, count in items])


def draw_rows_at(items: Seq[tuple[Sequence, Seq[int]]]) -> DrawRows:
    """Rows for each (sequence, position of each row)."""
    counts = [len(positions) for _, positions in items]
    params = [sequence.params for sequence, _ in items]
    each_row = [(sequence, position) for sequence, positions in items for position in positions]
    temperatures = np.array([0.0 if p.is_greedy else p.temperature for p in params], np.float32)
    masked = [
        (row, token_id)
        for row, (sequence, position) in enumerate(each_row)
        if position - sequence.num_prompt_tokens < sequence.params.min_tokens
        for token_id in sequence.masked_token_ids
    ]
    return DrawRows(
        temperatures=np.repeat(temperatures, counts),
        top_ks=np.repeat(np.array([p.top_k for p in params], np.int64), counts),
        top_ps=np.repeat(np.array([p.top_p for p in params], np.float32), counts),
        seeds=np.repeat(np.array([sequence.seed for sequence, _ in items], np.uint64), counts),
        positions=np.array([position for _, position in each_row], np.uint64),
        masked_rows=[row for row, _ in masked],
        masked_token_ids=[token_id for _, token_id in masked],
    )


def mask_stop_tokens_(logits: Tensor, rows: DrawRows) -> None:
    """Forbid stop tokens where min_tokens is not reached, in place."""
    if rows.masked_rows:
        logits[rows.masked_rows, rows.masked_token_ids] = float("-inf")


def mask_by_grammar_(logits: Tensor, items: Seq[tuple[int, Sequence]]) -> None:
    """Forbid what the sequences' grammars do, in place; `items` are (row, sequence).

    A row that would be left with nothing, since its stop tokens are masked too, stays as it is: the answer goes on
    after its JSON.
    """
    for row, sequence in items:
        allowed = sequence.grammar.allowed() if sequence.grammar is not None else None
        if allowed is None:
            continue
        kept = logits[row].masked_fill(torch.from_numpy(~allowed).to(logits.device), float("-inf"))
        if not torch.isneginf(kept).all():
            logits[row] = kept


def probabilities(logits: Tensor, rows: DrawRows) -> Tensor:
    """What each row draws from, float32 [R, V] summing to 1: one-hot where greedy, else temperature,
    then top-k, then top-p (the smallest set of best tokens with at least that mass, as in vLLM)."""
    greedy = torch.from_numpy(rows.temperatures == 0).to(logits.device)
    temperatures = torch.from_numpy(np.where(rows.temperatures == 0, np.float32(1), rows.temperatures))
    scaled = logits / temperatures.to(logits.device).unsqueeze(-1)
    drawn = _filtered_softmax(scaled, rows) if rows.filters else torch.softmax(scaled, -1)
    if not greedy.any():
        return drawn
    one_hot = torch.zeros_like(drawn).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    return torch.where(greedy.unsqueeze(-1), one_hot, drawn)


def _filtered_softmax(scaled: Tensor, rows: DrawRows) -> Tensor:
    """Softmax over what top-k and then top-p leave, [R, V]."""
    device, vocab_size = scaled.device, scaled.shape[-1]
    top_ks = torch.from_numpy(np.where(rows.top_ks == 0, vocab_size, rows.top_ks)).to(device).unsqueeze(-1)
    top_ps = torch.from_numpy(rows.top_ps).to(device).unsqueeze(-1)
    ordered, order = scaled.sort(dim=-1, descending=True, stable=True)
    ordered = ordered.masked_fill(torch.arange(vocab_size, device=device) >= top_ks, float("-inf"))
    mass = torch.softmax(ordered, -1)
    before = mass.cumsum(-1, dtype=torch.float64) - mass
    mass = mass.masked_fill((before >= top_ps) & (top_ps < 1), 0.0)
    mass /= mass.sum(-1, keepdim=True)
    return torch.zeros_like(mass).scatter_(-1, order, mass)


def draw(weights: Tensor, uniform: npt.NDArray[np.float64]) -> Tensor:
    """One token per row of non-negative weights [R, V] by the inverse of their cumulative sum, [R].

    Never a token of weight 0: uniforms stay below 1 - 2**-33, so the target stays below the total.
    """
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    target = torch.from_numpy(uniform).to(weights.device).unsqueeze(-1) * cumulative[:, -1:]
    token_ids = torch.searchsorted(cumulative, target, right=True).squeeze(-1)
    return token_ids.clamp_(max=weights.shape[-1] - 1)


def uniforms(rows: DrawRows, stream: Stream) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1), one per row, from SplitMix64 over (seed, position, stream)."""
    with np.errstate(over="ignore"):
        state = _mix(rows.seeds) + rows.positions * np.uint64(4) + np.uint64(stream)
        bits = _mix(_mix(state) ^ rows.seeds)
    return (bits >> np.uint64(32)).astype(np.float64) * 2.0**-32


def _mix(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's step (Steele, Lea and Flood 2014)."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def token_logprobs(logits: Tensor, token_ids: Tensor, num_top: int) -> list[TokenLogprob]:
    """Raw log-probabilities of `token_ids` [R] with rank and the `num_top` best, from float32 logits [R, V]."""
    num_top = min(num_top, logits.shape[-1])
    found: list[TokenLogprob] = []
    for part, ids in zip(torch.split(logits, _LOGPROB_ROWS), torch.split(token_ids, _LOGPROB_ROWS), strict=True):
        found += _token_logprobs(torch.log_softmax(part, -1), ids, num_top)
    return found


def _token_logprobs(logprobs: Tensor, token_ids: Tensor, num_top: int) -> list[TokenLogprob]:
    own = logprobs.gather(-1, token_ids.unsqueeze(-1))  # [R, 1]
    ranks = (logprobs > own).sum(-1) + 1
    best = logprobs.topk(num_top, -1)
    rows = zip(
        token_ids.tolist(), own.squeeze(-1).tolist(), ranks.tolist(), best.indices.tolist(), best.values.tolist(),
        strict=True,
    )  # fmt: skip
    return [
        TokenLogprob(token_id, logprob, rank, tuple(zip(ids, values, strict=True)))
        for token_id, logprob, rank, ids, values in rows
    ]
