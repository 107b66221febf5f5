"""Repairs what only shows when all rows are there: units of time, ids that repeat, parents that cannot be waited for.

Does not know formats: it is given the table as an importer made it, in the order of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from workloads.columns import requests_from_table, table_from_requests
from workloads.errors import WorkloadError, row_place
from workloads.importers.clock import in_one_unit
from workloads.importers.repairs import Repairs
from workloads.metadata import WorkloadMetadata
from workloads.request import Request
from workloads.validation import broken_rows

Mask = npt.NDArray[np.bool_]


def repaired_table(table: pa.Table, metadata: WorkloadMetadata, repairs: Repairs, *, where: str) -> pa.Table:
    """The table with every invariant of a workload, but for arrivals that start at 0.

    Raises:
        WorkloadError: times of two units that cannot be told apart.
    """
    table = _timed(table, repairs, where)
    table = without_broken_rows(table, metadata, repairs, where=where)
    table = _with_unique_ids(table, repairs, where)
    return _with_possible_parents(table, repairs, where)


def table_of(requests: Sequence[Request], repairs: Repairs, where: str) -> pa.Table:
    """The requests as a table, without those that hold a value of another type than their column.

    Raises:
        WorkloadError: such a value, where repairs are not allowed.
    """
    try:
        return table_from_requests(requests)
    except WorkloadError as error:
        if len(requests) == 1 or not repairs.allowed:
            told = WorkloadError(error.what, place=f"{where}, request {requests[0].request_id!r:.40}", fix=error.fix)
            repairs.take("row_impossible", told if len(requests) == 1 else error)
            return table_from_requests([])
    half = len(requests) // 2
    return pa.concat_tables(table_of(part, repairs, where) for part in (requests[:half], requests[half:]))


def without_broken_rows(
    table: pa.Table, metadata: WorkloadMetadata, repairs: Repairs, *, where: str, first_row: int = 0
) -> pa.Table:
    """Without the rows that are impossible by themselves."""
    anywhen = _with(table, "arrival_s", pa.nulls(len(table), pa.float64()))  # arrivals may be relative to anything
    broken = broken_rows(anywhen, metadata)
    if not broken.any():
        return table
    row = first_row + int(np.argmax(broken))
    what, fix = "a row contradicts itself", "Correct the row"
    place = row_place(where, row, "request_id")
    repairs.take("row_impossible", WorkloadError(what, place=place, fix=fix), num=int(broken.sum()))
    return table.filter(pa.array(~broken))


def _timed(table: pa.Table, repairs: Repairs, where: str) -> pa.Table:
    """All arrivals in seconds; think times that were taken from both units are unknown."""
    arrivals = np.asarray(table.column("arrival_s").to_numpy(), np.float64)
    seconds = in_one_unit(arrivals, where, repairs)
    known = seconds[np.isfinite(seconds)]
    if num_back := int((np.diff(known) < 0).sum()):
        error = WorkloadError("the clock goes back", place=where, fix="Put the rows in order of time")
        repairs.take("clock_back", error, num=num_back)
    changed = np.isfinite(arrivals) & (seconds != arrivals)
    if not changed.any():
        return table
    children, parents = _links(table)
    mixed = changed.copy()
    mixed[children[(parents >= 0) & changed[parents]]] = True
    table = _with(table, "arrival_s", pa.array(seconds, from_pandas=True))
    return _with(table, "think_s", _nulled(table.column("think_s"), mixed))


def _with_unique_ids(table: pa.Table, repairs: Repairs, where: str) -> pa.Table:
    """Rows that are wholly alike once; other rows of one id under ids of their own."""
    ids = table.column("request_id").to_pylist()
    seen: dict[str, list[int]] = {}
    for row, name in enumerate(ids):
        seen.setdefault(name, []).append(row)
    if len(seen) == len(ids):
        return table
    keep = np.ones(len(ids), dtype=bool)
    for name, rows in [(name, rows) for name, rows in seen.items() if len(rows) > 1]:
        alike = list(requests_from_table(table.take(pa.array(rows))))
        for place, row in enumerate(rows[1:], start=1):
            error = WorkloadError(
                f"id {name!r:.40} occurs twice", place=row_place(where, row, "request_id"), fix="Make the ids unique"
            )
            if alike[place] in alike[:place]:
                repairs.take("id_twice", error)
                keep[row] = False
            else:
                repairs.take("id_reused", error)
                ids[row] = _free(name, place + 1, seen)
                seen[ids[row]] = [row]
    return _with(table, "request_id", pa.array(ids, pa.string())).filter(pa.array(keep))


def _free(name: str, number: int, taken: dict[str, list[int]]) -> str:
    while f"{name}#{number}" in taken:
        number += 1
    return f"{name}#{number}"


def _with_possible_parents(table: pa.Table, repairs: Repairs, where: str) -> pa.Table:
    """Without links to what is not there, to other sessions, and to what waits for the request itself."""
    children, parents = _links(table)
    if not len(children):
        return table
    sessions = table.column("session_id").to_pylist()
    pairs = zip(children.tolist(), parents.tolist(), strict=True)
    known = [parent >= 0 and sessions[child] == sessions[parent] is not None for child, parent in pairs]
    keep = np.asarray(known, dtype=bool)
    _take(repairs, "parent_missing", "a parent is missing or in another session", ~keep, children, where)
    circular = _circular(children, parents, keep, len(table))
    _take(repairs, "parent_cycle", "a request waits for itself through its parents", circular, children, where)
    return table if (keep & ~circular).all() else _with_links(table, children, keep & ~circular)


def _take(repairs: Repairs, kind: str, what: str, gone: Mask, children: npt.NDArray[np.int64], where: str) -> None:
    if gone.any():
        place = row_place(where, int(children[np.argmax(gone)]), "parent_ids")
        repairs.take(kind, WorkloadError(what, place=place, fix="Correct the parents"), num=int(gone.sum()))


def _links(table: pa.Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of children and of their parents, -1 where there is none; int64 of shape (links,)."""
    lists = table.column("parent_ids").combine_chunks()
    children = np.asarray(pc.list_parent_indices(lists).to_numpy(zero_copy_only=False), np.int64)
    found = pc.index_in(pc.list_flatten(lists), value_set=table.column("request_id").combine_chunks())
    return children, np.asarray(found.fill_null(-1).to_numpy(zero_copy_only=False), np.int64)


def _circular(children: npt.NDArray[np.int64], parents: npt.NDArray[np.int64], keep: Mask, num_rows: int) -> Mask:
    """Links to a row that is not earlier, among requests that wait for each other: without them none does."""
    if (parents < children)[keep].all():
        return np.zeros(len(children), dtype=bool)
    edges = (np.ones(int(keep.sum()), np.int8), (children[keep], parents[keep]))
    graph = coo_matrix(edges, shape=(num_rows, num_rows)).tocsr()
    _, component = connected_components(graph, directed=True, connection="strong")
    return np.asarray(keep & (parents >= children) & (component[children] == component[parents]), dtype=bool)


def _with_links(table: pa.Table, children: npt.NDArray[np.int64], keep: Mask) -> pa.Table:
    """Only these links; think times counted from the end of a parent that is gone are unknown."""
    names = table.column("parent_ids").to_pylist()
    kept: dict[int, list[Any]] = {}
    place: dict[int, int] = {}
    for child, is_kept in zip(children.tolist(), keep.tolist(), strict=True):
        index = place.get(child, 0)
        place[child] = index + 1
        kept.setdefault(child, []).extend([names[child][index]] if is_kept else [])
    for child, left in kept.items():
        names[child] = left or None
    changed = np.zeros(len(table), dtype=bool)
    changed[children[~keep]] = True
    table = _with(table, "parent_ids", pa.array(names, pa.list_(pa.string())))
    return _with(table, "think_s", _nulled(table.column("think_s"), changed))


def _nulled(column: pa.ChunkedArray, where: Mask) -> pa.ChunkedArray:
    return pc.if_else(pa.array(where), pa.scalar(None, column.type), column)


def _with(table: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), column)
