"""Traces of lengths with sessions as tables: read once for what links rows, some bytes a row, and once for the rest.

Does not explain what is wrong with a file: what it cannot take, the importers that read row by row can, or can name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workloads.columns import conform
from workloads.importers.hashed_tables import LENGTHS, json_batches
from workloads.importers.length_tables import NotPlainError, csv_batches, first_csv_row, length_columns, request_types

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

_NO_PARENT = -1
_MOST_ROWS = 2**31 - 1

_CHATS = pa.schema([("chat_id", pa.int64()), ("parent_chat_id", pa.int64()), ("timestamp", pa.float64())])
_BAILIAN = pa.schema([*_CHATS, *LENGTHS, ("turn", pa.int32()), ("type", pa.string())])


def bailian_tables(path: Path, losses: list[str]) -> Iterator[pa.Table]:
    """Qwen-Bailian's fields, nothing else; chats that name a parent come after it, or are told in `losses`.

    Raises:
        NotPlainError: anything else.
    """
    chats, links, num_orphans = _chat_links(path)
    if num_orphans:
        losses.append(f"{num_orphans} chats name a parent that is not earlier in the file: they begin sessions here")
    row = 0
    for batch in json_batches(path, _BAILIAN):
        end = row + len(batch)
        columns = links.columns(row, end, chats)
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
    """Of every row its time, its session by a number, the row it waits for (-1: none), and how long it thinks."""

    times: Floats
    sessions: Ints  # -1: none
    parents: Ints
    think_s: Floats

    def columns(self, row: int, end: int, names: npt.NDArray[np.int64]) -> dict[str, pa.Array]:
        """The links of some rows. Args: names: of every row."""
        parents, sessions = self.parents[row:end], self.sessions[row:end]
        has_parent = parents >= 0
        offsets = np.concatenate([[0], np.cumsum(has_parent)]).astype(np.int32)
        lists = pa.ListArray.from_arrays(offsets, _names(names[parents[has_parent]]), mask=pa.array(~has_parent))
        return {
            "session_id": _names(names[sessions], mask=sessions < 0),
            "parent_ids": lists,
            "think_s": pa.array(self.think_s[row:end], mask=~has_parent),
        }


def _names(numbers: npt.NDArray[np.int64], mask: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    return pa.array(numbers, mask=mask).cast(pa.string())


def _chat_links(path: Path) -> tuple[npt.NDArray[np.int64], _Links, int]:
    """Every row's chat, how chats are linked, and how many name a parent that is not earlier."""
    parts: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]] = []
    for batch in json_batches(path, _CHATS, ignore_others=True):
        if batch.column("chat_id").null_count or batch.column("timestamp").null_count:
            raise NotPlainError
        parents = batch.column("parent_chat_id").fill_null(_NO_PARENT)
        columns = (batch.column("chat_id"), parents, batch.column("timestamp"))
        parts.append(tuple(np.asarray(column.to_numpy()) for column in columns))  # type: ignore[arg-type]
    if not parts:
        raise NotPlainError
    chats, named, times = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    if not (np.isfinite(times).all() and ((chats >= 0) & (chats < 2**31)).all() and len(chats) < _MOST_ROWS):
        raise NotPlainError
    parents = _earlier_rows(chats, named)
    num_orphans = int(((parents < 0) & (named != _NO_PARENT)).sum())
    think = np.maximum(0.0, times - times[parents])  # meaningless, and not used, where there is no parent
    return chats, _Links(times=times, sessions=_roots(parents), parents=parents, think_s=think), num_orphans


def _earlier_rows(chats: npt.NDArray[np.int64], named: npt.NDArray[np.int64]) -> Ints:
    """The row of each named chat where that is earlier, else -1."""
    order = np.argsort(chats, kind="stable").astype(np.int32)
    ordered = chats[order]
    if (ordered[1:] == ordered[:-1]).any():
        raise NotPlainError
    places = np.minimum(np.searchsorted(ordered, named), len(ordered) - 1)
    rows = order[places]
    is_earlier = (ordered[places] == named) & (rows < np.arange(len(chats), dtype=np.int32))
    return np.where(is_earlier, rows, np.int32(-1))


def _roots(parents: Ints) -> Ints:
    """The row at which each row's chain of parents begins."""
    roots = np.where(parents >= 0, parents, np.arange(len(parents), dtype=np.int32))
    while not np.array_equal(further := roots[roots], roots):
        roots = further
    return roots


_WORD = pa.dictionary(pa.int32(), pa.string())
_TURNS = {"Timestamp": pa.float64(), "Session ID": pa.string(), "Elapsed time": pa.float64()}
_BURSTS = {"Model": _WORD, "Request tokens": pa.int32(), "Response tokens": pa.int32(), "Log Type": _WORD}
_MAY_BE_NULL = ("Session ID", "Elapsed time")


def burstgpt_session_tables(path: Path, losses: list[str]) -> Iterator[pa.Table]:
    """BurstGPT from v1.2: a turn waits for the one before of its session, unless it overlaps, which `losses` tells.

    Raises:
        NotPlainError: anything else.
    """
    first_csv_row(path, ("Timestamp", "Model", "Request tokens", "Response tokens", "Log Type"))
    links, turns, elapsed, names, num_overlapping = _turn_links(path)
    if num_overlapping:
        losses.append(f"{num_overlapping} turns start before the one before has ended: they wait for none")
    rows = np.arange(len(turns))
    row = 0
    for batch in csv_batches(path, _BURSTS):
        end = row + len(batch)
        outputs, sessions = batch.column("Response tokens"), links.sessions[row:end]
        columns = links.columns(row, end, rows)
        columns |= length_columns(row, links.times[row:end], batch.column("Request tokens"), outputs)
        columns["session_id"] = names.take(pa.array(sessions, mask=sessions < 0))
        columns["turn"] = pa.array(turns[row:end], mask=sessions < 0)
        columns["model"] = batch.column("Model")
        failed = pa.array((np.asarray(outputs.to_numpy()) == 0).astype(np.int32))
        columns["status"] = pa.DictionaryArray.from_arrays(failed, ["ok", "error"])
        columns["e2el_s"] = pa.array(elapsed[row:end], mask=np.isnan(elapsed[row:end]))
        columns["extra"] = request_types(batch.column("Log Type"))
        yield conform(pa.table(columns), where="trace")
        row = end


def _turn_links(path: Path) -> tuple[_Links, Ints, Floats, pa.Array, int]:
    """Links, each row's turn and elapsed time, the sessions' names, and how many turns overlap the one before."""
    parts: list[tuple[Floats, pa.Array, Floats]] = []
    for batch in csv_batches(path, _TURNS, may_be_null=_MAY_BE_NULL):
        times = np.asarray(batch.column("Timestamp").to_numpy(), np.float64)
        column = batch.column("Elapsed time")
        elapsed = np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
        is_known = np.asarray(column.is_valid())
        if not np.isfinite(times).all() or not (elapsed[is_known] >= 0).all() or np.isinf(elapsed).any():
            raise NotPlainError
        parts.append((times, batch.column("Session ID"), elapsed))
    if not parts:
        raise NotPlainError
    times, elapsed = (np.concatenate([part[i] for part in parts]) for i in (0, 2))
    encoded = pa.chunked_array([part[1] for part in parts]).combine_chunks().dictionary_encode()
    sessions = np.asarray(encoded.indices.fill_null(-1).to_numpy(), np.int32)
    before, turns = _in_sessions(sessions)
    ends = times + np.nan_to_num(elapsed)
    waits = (before >= 0) & (ends[before] <= times + 1)  # stamps are whole seconds
    think = np.maximum(0.0, times - ends[before])
    links = _Links(times=times, sessions=sessions, parents=np.where(waits, before, np.int32(-1)), think_s=think)
    return links, turns, elapsed, encoded.dictionary, int(((before >= 0) & ~waits).sum())


def _in_sessions(sessions: Ints) -> tuple[Ints, Ints]:
    """The row before of each row's session (-1: none) and its place in the session, from 0."""
    order = np.argsort(sessions, kind="stable").astype(np.int32)
    begins = np.ones(len(order), dtype=bool)
    begins[1:] = sessions[order[1:]] != sessions[order[:-1]]
    places = np.arange(len(order), dtype=np.int32)
    turns, before = np.empty_like(places), np.full_like(places, -1)
    turns[order] = places - np.maximum.accumulate(np.where(begins, places, np.int32(0)))
    follows = np.flatnonzero(~begins)
    before[order[follows]] = order[follows - 1]
    before[sessions < 0] = -1
    return before, turns
