"""Traces of lengths with sessions as tables: read once for what links rows, some bytes a row, and once for the rest.

Does not explain what is wrong with a file: what it cannot take, the importers that read row by row can, or can name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workloads.columns import conform
from workloads.importers.hashed_tables import LENGTHS, json_batches
from workloads.importers.length_tables import NotPlainError, csv_batches, first_csv_row, length_columns, request_types

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

_NO_PARENT, _NOBODY = -1, -2  # what chats name, where it is none, and where there cannot be such a chat
_AT_ONCE = 1 << 20  # rows

_CHATS = pa.schema([("chat_id", pa.int64()), ("parent_chat_id", pa.int64()), ("timestamp", pa.float64())])
_BAILIAN = pa.schema([*_CHATS, *LENGTHS, ("turn", pa.int32()), ("type", pa.string())])


def bailian_tables(path: Path, losses: list[str]) -> Iterator[pa.Table]:
    """Qwen-Bailian's fields, nothing else; chats that name a parent come after it, or are told in `losses`.

    Raises:
        NotPlainError: anything else.
    """
    chats, roots, links, num_orphans = _chat_links(path)
    if num_orphans:
        losses.append(f"{num_orphans} chats name a parent that is not earlier in the file: they begin sessions here")
    row = 0
    for batch in json_batches(path, _BAILIAN):
        end = row + len(batch)
        columns = links.columns(row, end, chats) | {"session_id": _names(chats[roots[row:end]])}
        counts = (batch.column("input_length"), batch.column("output_length"))
        columns |= length_columns(row, links.times[row:end], *counts) | {"request_id": _names(chats[row:end])}
        columns["turn"] = _turns(batch.column("turn"))
        if (hashes := batch.column("hash_ids")).null_count < len(batch):
            if hashes.flatten().null_count:
                raise NotPlainError
            columns["prefix_hashes"] = hashes
        columns["extra"] = request_types(batch.column("type").dictionary_encode())
        yield conform(pa.table(columns), where="trace")
        row = end


def _turns(column: pa.Array) -> pa.Array:
    numbers = np.asarray(column.fill_null(1).to_numpy(), np.int32)
    if (numbers < 0).any():
        raise NotPlainError
    return pa.array(np.maximum(numbers - 1, 0), mask=np.asarray(column.is_null()))


@dataclass(frozen=True, kw_only=True)
class _Links:
    """Of every row what links it, in few bytes."""

    times: Floats
    ends: Floats  # from which a row that waits for this one thinks
    parents: Ints  # the row it waits for, -1: none

    def columns(self, row: int, end: int, names: Ints | None = None) -> dict[str, pa.Array]:
        """Parents and think times of some rows; requests have these names, or their row's number."""
        has_parent = self.parents[row:end] >= 0
        parents = self.parents[row:end][has_parent]
        think = np.zeros(end - row)
        think[has_parent] = np.maximum(0.0, self.times[row:end][has_parent] - self.ends[parents])
        offsets = np.concatenate([[0], np.cumsum(has_parent)]).astype(np.int32)
        called = _names(parents if names is None else names[parents])
        return {
            "parent_ids": pa.ListArray.from_arrays(offsets, called, mask=pa.array(~has_parent)),
            "think_s": pa.array(think, mask=~has_parent),
        }


def _names(numbers: Ints) -> pa.Array:
    return pa.array(numbers).cast(pa.string())


def _whole(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """One array; the parts are let go."""
    found = np.concatenate(parts)
    parts.clear()
    return found


def _chat_links(path: Path) -> tuple[Ints, Ints, _Links, int]:
    """Every row's chat, the row its session begins with, its links, and how many name a parent that is not earlier."""
    parts: tuple[list[npt.NDArray[Any]], ...] = ([], [], [])
    for batch in json_batches(path, _CHATS, ignore_others=True):
        if batch.column("chat_id").null_count or batch.column("timestamp").null_count:
            raise NotPlainError
        chats = np.asarray(batch.column("chat_id").to_numpy())
        named = np.asarray(batch.column("parent_chat_id").fill_null(_NO_PARENT).to_numpy())
        times = np.asarray(batch.column("timestamp").to_numpy())
        if not (np.isfinite(times) & (chats >= 0) & (chats < 2**31)).all():
            raise NotPlainError
        named = np.where((named >= _NO_PARENT) & (named < 2**31), named, _NOBODY)
        for part, column in zip(parts, (chats.astype(np.int32), named.astype(np.int32), times), strict=True):
            part.append(column)
    if not parts[0]:
        raise NotPlainError
    chats, named, times = (_whole(part) for part in parts)
    parents = _earlier_rows(chats, named)
    num_orphans = int(((parents < 0) & (named != _NO_PARENT)).sum())
    return chats, _roots(parents), _Links(times=times, ends=times, parents=parents), num_orphans


def _earlier_rows(chats: Ints, named: Ints) -> Ints:
    """The row of each named chat where that is earlier, else -1."""
    order = np.argsort(chats, kind="stable").astype(np.int32)
    ordered = chats[order]
    if (ordered[1:] == ordered[:-1]).any():
        raise NotPlainError
    found = np.empty_like(named)
    for begin in range(0, len(named), _AT_ONCE):
        wanted = named[begin : begin + _AT_ONCE]
        places = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
        rows = order[places]
        is_earlier = (ordered[places] == wanted) & (rows < np.arange(begin, begin + len(wanted)))
        found[begin : begin + _AT_ONCE] = np.where(is_earlier, rows, -1)
    return found


def _roots(parents: Ints) -> Ints:
    """The row at which each row's chain of parents begins."""
    roots = np.where(parents >= 0, parents, np.arange(len(parents), dtype=np.int32))
    while not np.array_equal(further := roots[roots], roots):
        roots = further
    return roots


_WORD = pa.dictionary(pa.int32(), pa.string())
_TURNS = {"Timestamp": pa.float64(), "Session ID": pa.string(), "Elapsed time": pa.float64()}
_BURSTS = {
    "Session ID": pa.string(),
    "Elapsed time": pa.float64(),
    "Model": _WORD,
    "Request tokens": pa.int32(),
    "Response tokens": pa.int32(),
    "Log Type": _WORD,
}
_MAY_BE_NULL = ("Session ID", "Elapsed time")


def burstgpt_session_tables(path: Path, losses: list[str]) -> Iterator[pa.Table]:
    """BurstGPT from v1.2: a turn waits for the one before of its session, unless it overlaps, which `losses` tells.

    Raises:
        NotPlainError: anything else.
    """
    first_csv_row(path, ("Timestamp", "Model", "Request tokens", "Response tokens", "Log Type"))
    links, turns, num_overlapping = _turn_links(path)
    if num_overlapping:
        losses.append(f"{num_overlapping} turns start before the one before has ended: they wait for none")
    row = 0
    for batch in csv_batches(path, _BURSTS, may_be_null=_MAY_BE_NULL):
        end = row + len(batch)
        outputs, sessions = batch.column("Response tokens"), batch.column("Session ID")
        columns = links.columns(row, end)
        columns |= length_columns(row, links.times[row:end], batch.column("Request tokens"), outputs)
        columns["session_id"] = sessions
        columns["turn"] = pa.array(turns[row:end], mask=np.asarray(sessions.is_null()))
        columns["model"] = batch.column("Model")
        failed = pa.array((np.asarray(outputs.to_numpy()) == 0).astype(np.int32))
        columns["status"] = pa.DictionaryArray.from_arrays(failed, ["ok", "error"])
        columns["e2el_s"] = batch.column("Elapsed time")
        columns["extra"] = request_types(batch.column("Log Type"))
        yield conform(pa.table(columns), where="trace")
        row = end


def _turn_links(path: Path) -> tuple[_Links, Ints, int]:
    """Links, each row's turn, and how many turns overlap the one before."""
    parts: tuple[list[npt.NDArray[Any]], ...] = ([], [], [])
    for batch in csv_batches(path, _TURNS, may_be_null=_MAY_BE_NULL):
        times = np.asarray(batch.column("Timestamp").to_numpy(), np.float64)
        elapsed = np.asarray(batch.column("Elapsed time").fill_null(0.0).to_numpy(), np.float64)
        if not np.isfinite(times).all() or not (np.isfinite(elapsed) & (elapsed >= 0)).all():
            raise NotPlainError
        hashes = _session_hashes(batch.column("Session ID"))
        for part, column in zip(parts, (times, times + elapsed, hashes), strict=True):
            part.append(column)
    if not parts[0]:
        raise NotPlainError
    times, ends, sessions = (_whole(part) for part in parts)
    parents, turns = _in_sessions(sessions)
    overlaps = (parents >= 0) & (ends[parents] > times + 1)  # stamps are whole seconds
    parents[overlaps] = -1
    return _Links(times=times, ends=ends, parents=parents), turns, int(overlaps.sum())


_NO_SESSION = 0


def _session_hashes(column: pa.Array) -> npt.NDArray[np.int64]:
    """64 bits a name, 0 for none: that two of ten million share them has a chance of 3 in a million."""
    encoded = column.dictionary_encode()
    hashes = np.fromiter((hash(name) or 1 for name in [*encoded.dictionary.to_pylist(), ""]), np.int64)
    hashes[-1] = _NO_SESSION
    codes = np.asarray(encoded.indices.fill_null(-1).to_numpy(), np.int64)
    return np.asarray(hashes[codes], np.int64)


def _in_sessions(sessions: npt.NDArray[np.int64]) -> tuple[Ints, Ints]:
    """The row before of each row's session (-1: none) and its place in the session, from 0."""
    order = np.argsort(sessions, kind="stable").astype(np.int32)
    begins = np.ones(len(order), dtype=bool)
    begins[1:] = sessions[order[1:]] != sessions[order[:-1]]
    places = np.arange(len(order), dtype=np.int32)
    turns, before = np.empty_like(places), np.full_like(places, -1)
    turns[order] = places - np.maximum.accumulate(np.where(begins, places, np.int32(0)))
    before[order[1:]] = np.where(begins[1:], np.int32(-1), order[:-1])
    before[sessions == _NO_SESSION] = -1
    return before, turns
