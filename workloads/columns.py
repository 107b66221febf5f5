"""Requests to arrow tables and back.

Does not know files, nor whether the rows make sense together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

import pyarrow as pa

from workloads.errors import WorkloadError, row_place
from workloads.request import Check, Request
from workloads.schema import WORKLOAD_SCHEMA

_EMPTY_IS_NULL = ("parent_ids", "checks")
_LISTS = ("parent_ids", "prompt_token_ids", "response_token_ids", "prefix_hashes", "stop")


def table_from_requests(requests: Sequence[Request]) -> pa.Table:
    """One row a request, in the order given.

    Raises:
        WorkloadError: a value that does not fit its column's type.
    """
    columns = [_column(requests, field) for field in WORKLOAD_SCHEMA]
    return pa.Table.from_arrays(columns, schema=WORKLOAD_SCHEMA)


def _column(requests: Sequence[Request], field: pa.Field) -> pa.Array:
    values = [_cell(request, field.name) for request in requests]
    try:
        return pa.array(values, type=field.type)
    except (pa.ArrowException, TypeError, OverflowError, UnicodeError):
        row = _first_misfit(values, field.type)
    raise WorkloadError(
        f"{values[row]!r:.60} is not a {field.type}",
        place=row_place(None, row, field.name),
        fix="Correct the value where the requests are made",
    )


def _cell(request: Request, name: str) -> Any:
    value = getattr(request, name)
    if name in _EMPTY_IS_NULL and not value:
        return None
    if name == "checks":
        return [{"kind": check.kind, "spec": check.spec, "weight": check.weight} for check in value]
    return value


def _first_misfit(values: Sequence[Any], kind: pa.DataType) -> int:
    for row, value in enumerate(values):
        try:
            pa.array([value], type=kind)
        except (pa.ArrowException, TypeError, OverflowError, UnicodeError):
            return row
    raise AssertionError("a column failed whose cells all fit")


def requests_from_table(table: pa.Table, *, batch_rows: int = 4096) -> Iterator[Request]:
    """The rows as requests; all-null columns cost nothing."""
    known = {field.name for field in fields(Request)}
    for batch in table.to_batches(max_chunksize=batch_rows):
        names = [n for n, c in zip(batch.schema.names, batch.columns, strict=True) if c.null_count < len(c)]
        names = [name for name in names if name in known]
        columns = [_python_values(batch, name) for name in names]
        for cells in zip(*columns, strict=True):
            yield Request(**dict(zip(names, cells, strict=True)))


def _python_values(batch: pa.RecordBatch, name: str) -> list[Any]:
    values: list[Any] = batch.column(name).to_pylist()
    if name == "checks":
        return [tuple(Check(**check) for check in checks or ()) for checks in values]
    if name == "parent_ids":
        return [tuple(value or ()) for value in values]
    if name in _LISTS:
        return [value if value is None else tuple(value) for value in values]
    return values


def conform(table: pa.Table, *, where: str) -> pa.Table:
    """The table with exactly our columns and types: absent columns become null, convertible types are cast.

    Raises:
        WorkloadError: an unknown column, no request_id, or a type that cannot be cast.
    """
    for name in table.column_names:
        if name not in WORKLOAD_SCHEMA.names:
            fix = "Put source fields that have no column into `extra`, as JSON"
            raise WorkloadError(f"unknown column {name!r}", place=where, fix=fix)
    if "request_id" not in table.column_names:
        raise WorkloadError("no request_id column", place=where, fix="Give every request a unique request_id")
    columns = [_conform_column(table, field, where) for field in WORKLOAD_SCHEMA]
    return pa.Table.from_arrays(columns, schema=WORKLOAD_SCHEMA)


def _conform_column(table: pa.Table, field: pa.Field, where: str) -> pa.ChunkedArray | pa.Array:
    if field.name not in table.column_names:
        return pa.nulls(len(table), field.type)
    column = table.column(field.name)
    if column.type == field.type:
        return column
    try:
        if pa.types.is_dictionary(field.type) and not pa.types.is_dictionary(column.type):
            column = column.cast(pa.string()).dictionary_encode()
        return column.cast(field.type)
    except pa.ArrowException:
        raise WorkloadError(
            f"column {field.name} has type {column.type}, not {field.type}",
            place=where,
            fix="Write the column with the type of workloads/schema.py",
        ) from None
