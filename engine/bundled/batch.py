"""`Batch`: the packed tokens of one forward pass and where their keys and values go.

Does not know drawing. Built once per pass; layers add nothing to it.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.bundled.token_tree import Parents, path_lengths, paths

Ints = npt.NDArray[np.int64]


class Span(NamedTuple):
    """Consecutive tokens of one sequence to compute."""

    token_ids: list[int]
    start: int  # position of the first; everything before it is in the cache
    block_table: list[int]  # holds room for all of them
    parents: Parents = ()  # of the last tokens, where they are a tree
    adapter: int = -1  # the LoRA adapter's number; -1 is the base model


class Moves(NamedTuple):
    """Keys and values to copy from slots to slots; of one sequence's, no target comes after its source."""

    sources: list[int]
    targets: list[int]


class Paths(NamedTuple):
    """What tokens of trees see: everything before their tree, and the tokens that lead to them."""

    places: Ints  # [N, D] in the sequence's cache, a token's own last; garbage behind `lengths`
    lengths: Ints  # [N]; 0 outside trees, where a token sees everything up to itself
    starts: Ints  # [N] place of the tree's first token


class Batch(NamedTuple):
    """Spans packed without padding: N tokens of S sequences."""

    token_ids: Tensor  # [N]
    positions: Tensor  # [N]
    slots: Tensor  # [N] where each token's keys and values are written
    starts: Ints  # [S]
    lengths: Ints  # [S]
    block_tables: Ints  # [S, most blocks], padded with block 0
    paths: Paths | None = None  # where any span holds a tree
    adapters: Ints | None = None  # [S], where any span has one

    @property
    def ends(self) -> Ints:
        """Row of each span's last token, [S]."""
        return np.cumsum(self.lengths) - 1


def pack(spans: Seq[Span], block_size: int, device: torch.device) -> Batch:
    """Lay spans one after another."""
    lengths = np.fromiter((len(span.token_ids) for span in spans), np.int64, len(spans))
    starts = np.fromiter((span.start for span in spans), np.int64, len(spans))
    tables = _pad_tables(spans, int((starts + lengths).max()), block_size)
    rows = np.repeat(np.arange(len(spans)), lengths)
    positions = np.arange(len(rows)) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    slots = tables[rows, positions // block_size] * block_size + positions % block_size
    trees = _place_trees(spans, lengths, positions) if any(span.parents for span in spans) else None
    token_ids = np.fromiter(chain.from_iterable(span.token_ids for span in spans), np.int64, len(rows))
    packed = torch.from_numpy(np.stack((token_ids, positions, slots))).to(device)
    return Batch(packed[0], packed[1], packed[2], starts, lengths, tables, trees, _adapters(spans))


def _adapters(spans: Seq[Span]) -> Ints | None:
    if all(span.adapter < 0 for span in spans):
        return None
    return np.array([span.adapter for span in spans], np.int64)


def _place_trees(spans: Seq[Span], lengths: Ints, positions: Ints) -> Paths:
    """The paths of trees' tokens; a token's position, changed in place, counts its path alone."""
    deepest = max(paths(span.parents).shape[1] for span in spans if span.parents)
    places = np.zeros((len(positions), deepest), np.int64)
    own_lengths, starts = np.zeros((2, len(positions)), np.int64)
    end = 0
    for span, length in zip(spans, lengths.tolist(), strict=True):
        end += length
        if span.parents:
            size = len(span.parents)
            first, nodes = span.start + length - size, paths(span.parents)
            places[end - size : end, : nodes.shape[1]] = nodes + first
            own_lengths[end - size : end] = path_lengths(span.parents)
            starts[end - size : end] = first
    np.copyto(positions, starts + own_lengths - 1, where=own_lengths > 0)
    return Paths(places, own_lengths, starts)


def _pad_tables(spans: Seq[Span], longest: int, block_size: int) -> Ints:
    tables = np.zeros((len(spans), -(-longest // block_size)), np.int64)
    for row, span in enumerate(spans):
        used = -(-(span.start + len(span.token_ids)) // block_size)
        tables[row, :used] = span.block_table[:used]
    return tables
