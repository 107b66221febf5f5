"""Parts of a workload that are still traffic: whole sessions, contiguous in time, never single requests.

Does not know what the part is for. Taking sessions at random would cut prefix sharing and flatten bursts.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workloads.capabilities import derive_capabilities
from workloads.errors import WorkloadError
from workloads.metadata import WorkloadMetadata
from workloads.workload import Workload

Ints = npt.NDArray[np.int64]


class Split(NamedTuple):
    """Earlier sessions to learn from, later ones to verify on; both start at 0 s."""

    train: Workload
    heldout: Workload


def session_numbers(workload: Workload) -> Ints:
    """Number of each request's session in order of first arrival; a request without session_id is its own session."""
    return _numbered(workload.table.column("session_id"))


def _numbered(sessions: pa.ChunkedArray) -> Ints:
    rows = np.arange(len(sessions))
    codes = sessions.combine_chunks().dictionary_encode()
    codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
    known = np.asarray(codes.indices.fill_null(-1).to_numpy(zero_copy_only=False), np.int64)
    labels = np.where(known >= 0, known, rows + len(codes.dictionary))
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def split_by_session(workload: Workload, fraction: float) -> Split:
    """The last `fraction` of the sessions, by first arrival, held out from the rest.

    Raises:
        WorkloadError: fewer than two sessions, or a fraction outside 0..1.
    """
    if not 0 < fraction < 1:
        raise WorkloadError(f"cannot hold out {fraction} of a workload", fix="Give a fraction between 0 and 1")
    sessions = session_numbers(workload)
    num_sessions = int(sessions.max(initial=-1)) + 1
    if num_sessions < 2:
        fix = "Give a longer workload, or the held-out part as a file of its own"
        raise WorkloadError(f"{num_sessions} session(s) cannot be split in two", fix=fix)
    num_heldout = min(max(1, round(fraction * num_sessions)), num_sessions - 1)
    later = sessions >= num_sessions - num_heldout
    share = f"{num_heldout} of {num_sessions} sessions"
    return Split(
        train=_part(workload, ~later, f"the last {share} were held out"),
        heldout=_part(workload, later, f"only the last {share} were kept"),
    )


def window(
    workload: Workload, *, seconds: float | None = None, num_requests: int | None = None, seed: int = 0
) -> Workload:
    """A random contiguous window of whole sessions, moved to start at 0 s.

    Args:
        seconds: sessions that start within a window so long; their later turns come along.
        num_requests: consecutive sessions until they hold so many requests; give this or `seconds`.
        seed: of the window's place.

    Raises:
        WorkloadError: neither or both lengths given, or `seconds` for a workload without arrivals.
    """
    if (seconds is None) == (num_requests is None):
        raise WorkloadError("a window has a length", fix="Give seconds or num_requests, one of them")
    rng = np.random.default_rng(seed)
    if seconds is not None:
        starts = session_starts(workload)
        latest = max(0.0, float(starts.max(initial=0.0)) - seconds)
        return window_at(workload, start_s=float(rng.uniform(0, latest)) if latest else 0.0, seconds=seconds)
    assert num_requests is not None
    return _window_of(workload, num_requests, rng)


def window_at(workload: Workload, *, start_s: float, seconds: float) -> Workload:
    """The sessions that start in [start_s, start_s + seconds), moved to start at 0 s.

    Raises:
        WorkloadError: no arrivals, or no session starts there.
    """
    starts = session_starts(workload)
    chosen = (starts >= start_s) & (starts < start_s + seconds)
    if not chosen.any():
        what = f"no session of {workload.metadata.name!r} starts between {start_s:g} and {start_s + seconds:g} s"
        raise WorkloadError(what, fix="Choose a longer window")
    rows = chosen[session_numbers(workload)]
    return _part(workload, rows, f"only sessions that start in [{start_s:.3f}, {start_s + seconds:.3f}) s were kept")


def session_starts(workload: Workload) -> npt.NDArray[np.float64]:
    """First arrival of each session, in order.

    Raises:
        WorkloadError: a session without any arrival.
    """
    arrivals = workload.numbers("arrival_s")
    sessions = session_numbers(workload)
    starts = np.full(int(sessions.max(initial=-1)) + 1, np.inf)
    np.fmin.at(starts, sessions, arrivals)
    if not np.isfinite(starts).all():
        fix = "Take a window by num_requests instead"
        raise WorkloadError(f"workload {workload.metadata.name!r} has sessions without arrivals", fix=fix)
    return starts


def _window_of(workload: Workload, num_requests: int, rng: np.random.Generator) -> Workload:
    sessions = session_numbers(workload)
    sizes = np.bincount(sessions)
    ends = np.cumsum(sizes)
    starts = np.flatnonzero(ends[-1] - ends + sizes >= num_requests) if len(sizes) else np.empty(0, np.int64)
    first = int(rng.choice(starts)) if len(starts) else 0
    before = int(ends[first] - sizes[first]) if len(sizes) else 0
    last = int(np.searchsorted(ends, before + num_requests))
    rows = (sessions >= first) & (sessions <= last)
    return _part(workload, rows, f"only sessions {first} to {min(last, len(sizes) - 1)} of {len(sizes)} were kept")


def _part(workload: Workload, rows: npt.NDArray[np.bool_], done: str) -> Workload:
    """The chosen rows with arrivals moved to 0, and what was done written into the metadata's losses."""
    table = workload.table.filter(pa.array(rows))
    shift = pc.min(table.column("arrival_s")).as_py() or 0.0
    place = table.schema.get_field_index("arrival_s")
    table = table.set_column(place, "arrival_s", pc.subtract(table.column("arrival_s"), shift))
    return Workload(table, _part_metadata(workload.metadata, table, done, shift))


def _part_metadata(metadata: WorkloadMetadata, table: pa.Table, done: str, shift: float) -> WorkloadMetadata:
    supported = derive_capabilities(table)
    return metadata.model_copy(
        update={
            "capabilities": tuple(c for c in metadata.capabilities or () if c in supported),
            "losses": (*metadata.losses, done),
            "start_time": _later(metadata.start_time, shift),
        }
    )


def _later(start_time: str | None, seconds: float) -> str | None:
    if start_time is None:
        return None
    try:
        return (datetime.fromisoformat(start_time) + timedelta(seconds=seconds)).isoformat()
    except ValueError:
        return start_time
