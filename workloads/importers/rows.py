"""Rows of a log, whatever holds them: JSON Lines, one JSON array or object, CSV, or parquet, told by its first bytes.

Does not know what the rows mean.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from workloads.errors import WorkloadError, line_place
from workloads.importers.json_array import array_items
from workloads.importers.json_lines import json_lines
from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.importers.source_file import MAX_LINE_BYTES, byte_lines, head_bytes, text_lines, whole_document
from workloads.parquet import open_parquet

Row = dict[str, Any]

_LOOKED_AT_BYTES = 16 << 20  # for one first row
_BATCH_ROWS = 1024
_FIX = "Correct the file, or give its format with --format"


def read_rows(path: Path, repairs: Repairs = NO_REPAIRS) -> Iterator[tuple[int, Row]]:
    """(number from 1, row); the number is the line of JSON Lines and CSV, else the place in the array or table.

    Raises:
        WorkloadError: not one of the four, truncated, not UTF-8, or a row that is not an object.
    """
    head = head_bytes(path, 4096)
    if head.startswith(b"PAR1"):
        return _parquet_rows(path, repairs)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"[":
        return _json_rows(path, repairs)
    if start == b"{" and not _is_json_lines(path):
        return _json_object(path)
    return json_lines(path, repairs) if start == b"{" else csv_rows(path, repairs)


def first_row(path: Path) -> Row | None:
    """The first row, or None when there is none that can be read; reads at most some megabytes."""
    try:
        head = head_bytes(path, _LOOKED_AT_BYTES)
        if head.startswith(b"PAR1"):
            return next(_parquet_rows(path), (0, None))[1]
        text = head.decode("utf-8-sig", errors="replace").lstrip()
        if text[:1] in ("[", "{"):
            value, _ = json.JSONDecoder().raw_decode(text.removeprefix("[").lstrip() if text[0] == "[" else text)
            return value if isinstance(value, dict) else None
        return next(csv_rows(path), (0, None))[1]
    except (OSError, ValueError, csv.Error, RecursionError):
        return None


def _is_json_lines(path: Path) -> bool:
    line = next((line for _, line in byte_lines(path) if line.strip()), b"")
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return bool(line.strip()) and line.strip() != b"{" and line.rstrip().endswith(b"}")


def _json_rows(path: Path, repairs: Repairs) -> Iterator[tuple[int, Row]]:
    for number, row in array_items(path, repairs):
        if isinstance(row, dict):
            yield number, row
        else:
            error = WorkloadError("not a JSON object", place=line_place(path, number), fix=_FIX)
            repairs.take("line_unreadable", error)


def _json_object(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        value = json.loads(whole_document(path))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise WorkloadError(f"not JSON: {error}", place=line_place(path, line), fix=_FIX) from None
    assert isinstance(value, dict)  # it begins with a brace
    yield 1, value


def csv_rows(path: Path, repairs: Repairs = NO_REPAIRS) -> Iterator[tuple[int, Row]]:
    """(number of its last line, cells that are not empty by the header's names).

    Raises:
        WorkloadError: not CSV or not UTF-8.
    """
    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.DictReader(text_lines(path, repairs))
    while True:
        before = reader.line_num
        try:
            row = next(reader, None)
        except csv.Error as error:
            place = line_place(path, reader.line_num)
            repairs.take("line_unreadable", WorkloadError(f"not CSV: {error}", place=place, fix=_FIX))
            continue
        if row is None:
            return
        num_lines = reader.line_num - before
        if repairs.allowed and num_lines > 1 and (None in row or None in row.values()):
            # a quote without its end took lines that are rows of their own
            what, place = f"a cell without end over {num_lines} lines", line_place(path, before + 1)
            repairs.take("line_unreadable", WorkloadError(what, place=place, fix=_FIX), num=num_lines)
            continue
        yield reader.line_num, {name: cell for name, cell in row.items() if name is not None and cell != ""}


def _parquet_rows(path: Path, repairs: Repairs = NO_REPAIRS) -> Iterator[tuple[int, Row]]:
    file, number = _open_parquet(path, repairs), 0
    for group in range(file.num_row_groups):
        num_rows = file.metadata.row_group(group).num_rows
        end = number + num_rows
        try:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group]):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {name: cell for name, cell in row.items() if cell is not None}
        except (pa.ArrowException, OSError) as error:
            what = f"damaged parquet: {' '.join(str(error).split()):.80}"
            told = WorkloadError(what, place=line_place(path, number + 1), fix="Copy the file again")
            repairs.take("group_damaged", told, num=end - number)
        number = end


def _open_parquet(path: Path, repairs: Repairs) -> pq.ParquetFile:
    try:
        return open_parquet(path)
    except WorkloadError as error:
        if not repairs.allowed:
            raise
        fix = "--repair cannot help: parquet keeps its index at the end. Copy the file again"
        raise WorkloadError(error.what, fix=fix) from None


def parsed(value: object) -> Any:
    """A cell that may be JSON text (CSV and databases hold objects so), parsed; anything else as it is."""
    if isinstance(value, str) and value[:1] in ("{", "[", '"'):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
