"""`PrefixPaths`: block names of many prompts folded into runs that the same requests share.

Does not know what is cached: see `prefix_cache.py`. A run that only one request has is part of its tail, so work
grows with the places where prompts part, not with blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from engine.simulator.traffic import Traffic


class Run(NamedTuple):
    """Consecutive blocks [start, end) of a prompt; `node` is the same for all requests that share them."""

    node: int
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class PrefixPaths:
    """Per request its shared runs in order, then its tail, whose end is open: it grows with the answer."""

    shared: tuple[tuple[Run, ...], ...]
    tails: tuple[Run, ...]
    num_nodes: int


@lru_cache(maxsize=8)
def prefix_paths(traffic: Traffic, block_size: int) -> PrefixPaths:
    """Fold a traffic's block names, for an engine whose blocks have `block_size` tokens."""
    places = _places(traffic.block_hashes or [()] * len(traffic))
    counts: dict[int, int] = {}
    for path in places:
        for place in path:
            counts[place] = counts.get(place, 0) + 1
    shared = tuple(_shared_runs(path, counts, traffic.hash_block_tokens, block_size) for path in places)
    first_tail = 1 + max((run.node for runs in shared for run in runs), default=-1)
    starts = [runs[-1].end if runs else 0 for runs in shared]
    tails = tuple(Run(first_tail + index, start, start) for index, start in enumerate(starts))
    return PrefixPaths(shared=shared, tails=tails, num_nodes=first_tail + len(places))


def _places(hashes: Sequence[Sequence[int]]) -> list[list[int]]:
    """A number for every (prefix, block name); equal numbers mean equal prefixes."""
    numbers: dict[tuple[int, int], int] = {}
    found = []
    for names in hashes:
        path, parent = [], -1
        for name in names:
            parent = numbers.setdefault((parent, name), len(numbers))
            path.append(parent)
        found.append(path)
    return found


def _shared_runs(path: list[int], counts: dict[int, int], name_tokens: int, block_size: int) -> tuple[Run, ...]:
    """Counts never rise along a path, and where they stay the requests stay the same."""
    runs, tokens = [], 0
    for count, group in groupby(path, key=counts.__getitem__):
        members = list(group)
        start, tokens = tokens, tokens + len(members) * name_tokens
        if count > 1 and tokens // block_size > start // block_size:
            runs.append(Run(members[0], start // block_size, tokens // block_size))
    return tuple(runs)
