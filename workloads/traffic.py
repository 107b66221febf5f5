"""`Traffic`: when requests come, how long they are and which go together; a few numbers a request.

Does not know contents beyond their shared prefixes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workloads.arrivals import COARSE_S
from workloads.metadata import WorkloadMetadata
from workloads.prefix_sharing import PrefixBlocks, PrefixChains
from workloads.profile import PrefixSharing
from workloads.sessions import session_keys

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]
Lengths = npt.NDArray[np.floating]

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
    input_tokens: Lengths  # NaN: unknown
    output_tokens: Lengths
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
    def all_alone(self) -> bool:
        """Whether every request is its own session, numbered as the request."""
        return bool((self.sessions == np.arange(len(self.sessions), dtype=np.int32)).all())

    @cached_property
    def session_starts(self) -> Floats:
        """First of each session on the clock."""
        if self.all_alone:
            return self.clock  # the same numbers, without another array of them
        starts = np.full(int(self.sessions.max(initial=-1)) + 1, np.inf)
        np.fmin.at(starts, self.sessions, self.clock)
        return starts


def read_traffic(metadata: WorkloadMetadata, tables: Iterable[pa.Table], num_requests: int) -> Traffic:
    """Take the numbers from tables in our schema (at least `TRAFFIC_COLUMNS`), one at a time."""
    clock = np.empty(num_requests)
    inputs, outputs = (np.empty(num_requests, np.float32) for _ in range(2))
    keys: Ints | None = None  # none while no request has a session
    chains, end = PrefixChains(metadata.prefix), 0
    for table in tables:
        first, end = end, end + len(table)
        clock[first:end] = _numbers(table, "arrival_s")
        inputs[first:end] = _numbers(table, "input_tokens")
        outputs[first:end] = _numbers(table, "output_tokens")
        if table.column("session_id").null_count < len(table):
            keys = np.zeros(num_requests, np.int64) if keys is None else keys
            keys[first:end] = session_keys(table.column("session_id"))
        chains.feed(table)
    blocks = chains.blocks()
    families = None if blocks is None or keys is not None else _families(blocks)
    sessions = _numbered(keys if keys is not None else families, num_requests)
    known = np.zeros(int(sessions.max(initial=-1)) + 1, bool)
    known[sessions[np.isfinite(clock)]] = True
    timed = bool(known.all())
    step = metadata.time_resolution_s
    return Traffic(
        clock=clock if timed else np.arange(len(clock), dtype=np.float64),
        timed=timed,
        sessions=sessions,
        input_tokens=inputs,
        output_tokens=outputs,
        step_s=step if timed and step is not None and step > COARSE_S else None,
        blocks=blocks,
        prefix=chains.result(),
        families=families is not None,
    )


def _numbers(table: pa.Table, name: str) -> Floats:
    return np.asarray(table.column(name).cast(pa.float64()).to_numpy(), np.float64)


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


def _numbered(keys: Ints | None, num_requests: int) -> Ints:
    """Sessions from 0; key 0, or no keys: a request is its own session."""
    if keys is None or not keys.any():
        return np.arange(num_requests, dtype=np.int32)
    alone = keys == 0
    numbers = np.empty(num_requests, np.int32)
    named, numbers[~alone] = np.unique(keys[~alone], return_inverse=True)
    numbers[alone] = len(named) + np.arange(int(alone.sum()))
    return numbers
