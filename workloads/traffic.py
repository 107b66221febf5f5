"""`Traffic`: when requests come, how long they are and which go together; a few numbers a request.

Does not know contents beyond their shared prefixes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workloads.arrivals import COARSE_S
from workloads.metadata import WorkloadMetadata
from workloads.prefix_sharing import PrefixBlocks, PrefixChains
from workloads.profile import PrefixSharing
from workloads.sessions import session_keys

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TRAFFIC_COLUMNS = (
    *("arrival_s", "session_id", "input_tokens", "output_tokens"),
    *("prefix_hashes", "prompt_token_ids", "messages", "prompt"),
)

_HEAD_SHARE = 0.01  # a block that more of the requests begin with is a head common to many conversations
_HEAD_LEAST = 8  # requests


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """One entry a request, in the workload's order.

    `clock` is the arrival in seconds where every session has one (`timed`; NaN for its requests without), else the row
    number. With `families`, sessions were not recorded: requests that share a prefix of their own are taken for one.
    """

    clock: Floats
    timed: bool
    sessions: Ints  # 0-based
    input_tokens: Floats  # NaN: unknown
    output_tokens: Floats
    step_s: float | None  # arrivals stand for a step so long; None: they are exact
    blocks: PrefixBlocks | None
    prefix: PrefixSharing | None
    families: bool

    def __len__(self) -> int:
        return len(self.clock)

    @cached_property
    def span(self) -> float:
        """Last − first on the clock."""
        return float(np.nanmax(self.clock) - np.nanmin(self.clock)) if len(self) else 0.0

    @cached_property
    def session_starts(self) -> Floats:
        """First of each session on the clock."""
        starts = np.full(int(self.sessions.max(initial=-1)) + 1, np.inf)
        np.fmin.at(starts, self.sessions, self.clock)
        return starts


def read_traffic(metadata: WorkloadMetadata, tables: Iterable[pa.Table]) -> Traffic:
    """Take the numbers from tables in our schema (at least `TRAFFIC_COLUMNS`), one at a time."""
    arrivals, inputs, outputs, keys = [], [], [], []
    chains = PrefixChains(metadata.prefix)
    for table in tables:
        arrivals.append(_numbers(table, "arrival_s"))
        inputs.append(_numbers(table, "input_tokens").astype(np.float32))
        outputs.append(_numbers(table, "output_tokens").astype(np.float32))
        keys.append(session_keys(table.column("session_id")))
        chains.feed(table)
    recorded: Ints = _joined(keys, np.int64)
    blocks = chains.blocks()
    families = None if blocks is None or recorded.any() else _families(blocks)
    sessions = _numbered(recorded if families is None else families)
    clock: Floats = _joined(arrivals, np.float64)
    known = np.zeros(int(sessions.max(initial=-1)) + 1, bool)
    known[sessions[np.isfinite(clock)]] = True
    timed = bool(known.all())
    step = metadata.time_resolution_s
    return Traffic(
        clock=clock if timed else np.arange(len(clock), dtype=np.float64),
        timed=timed,
        sessions=sessions,
        input_tokens=_joined(inputs, np.float32),
        output_tokens=_joined(outputs, np.float32),
        step_s=step if timed and step is not None and step > COARSE_S else None,
        blocks=blocks,
        prefix=chains.result(),
        families=families is not None,
    )


def _numbers(table: pa.Table, name: str) -> Floats:
    return np.asarray(table.column(name).cast(pa.float64()).to_numpy(), np.float64)


def _joined(parts: list[Any], kind: type[np.generic]) -> Any:
    return np.concatenate(parts) if parts else np.empty(0, kind)


def _families(blocks: PrefixBlocks) -> Ints | None:
    """Key of each request's family, 0 for one alone: its first block that is not a common head (a system prompt).

    None where every block is such a head.
    """
    limit = max(_HEAD_LEAST, int(_HEAD_SHARE * len(blocks.lengths)))
    own = np.flatnonzero(np.bincount(blocks.names)[blocks.names] <= limit)
    if not len(own):
        return None
    first = np.searchsorted(own, blocks.offsets[:-1])
    place = own[np.minimum(first, len(own) - 1)]
    has = (first < len(own)) & (place < blocks.offsets[1:])
    return np.where(has, blocks.names[place] + 1, 0)


def _numbered(keys: Ints) -> Ints:
    """Sessions from 0; key 0 is of a request that is its own session."""
    alone = keys == 0
    if alone.all():
        return np.arange(len(keys))
    numbers = np.empty(len(keys), np.int64)
    named, numbers[~alone] = np.unique(keys[~alone], return_inverse=True)
    numbers[alone] = len(named) + np.arange(int(alone.sum()))
    return numbers
