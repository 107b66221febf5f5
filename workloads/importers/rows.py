"""Rows of a log, whatever holds them: JSON Lines, one JSON array or object, CSV, or parquet, told by its first bytes.

Does not know what the rows mean.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workloads.errors import WorkloadError, line_place
from workloads.importers.json_array import array_items
from workloads.importers.json_lines import json_lines
from workloads.importers.source_file import MAX_LINE_BYTES, byte_lines, head_bytes, text_lines, whole_document
from workloads.parquet import open_parquet

Row = dict[str, Any]

_LOOKED_AT_BYTES = 16 << 20  # for one first row
_BATCH_ROWS = 1024
_FIX = "Correct the file, or give its format with --format"


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(number from 1, row); the number is the line of JSON Lines and CSV, else the place in the array or table.

    Raises:
        WorkloadError: not one of the four, truncated, not UTF-8, or a row that is not an object.
    """
    head = head_bytes(path, 4096)
    if head.startswith(b"PAR1"):
        return _parquet_rows(path)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"[":
        return _json_rows(path)
    if start == b"{" and not _is_json_lines(path):
        return _json_object(path)
    return json_lines(path) if start == b"{" else _csv_rows(path)


def first_row(path: Path) -> Row | None:
    """The first row, or None when there is none that can be read; reads at most some megabytes."""
    try:
        head = head_bytes(path, _LOOKED_AT_BYTES)
        if head.startswith(b"PAR1"):
            return next(_parquet_rows(path), (0, None))[1]
        text = head.decode("utf-8-sig", errors="strict" if len(head) < _LOOKED_AT_BYTES else "ignore").lstrip()
        if text[:1] in ("[", "{"):
            value, _ = json.JSONDecoder().raw_decode(text.removeprefix("[").lstrip() if text[0] == "[" else text)
            return value if isinstance(value, dict) else None
        return next(_csv_rows(path), (0, None))[1]
    except (OSError, ValueError, csv.Error, RecursionError):
        return None


def _is_json_lines(path: Path) -> bool:
    line = next((line for _, line in byte_lines(path) if line.strip()), b"")
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return bool(line.strip()) and line.strip() != b"{" and line.rstrip().endswith(b"}")


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    for number, row in array_items(path):
        if not isinstance(row, dict):
            raise WorkloadError("not a JSON object", place=line_place(path, number), fix=_FIX)
        yield number, row


def _json_object(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        value = json.loads(whole_document(path))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise WorkloadError(f"not JSON: {error}", place=line_place(path, line), fix=_FIX) from None
    assert isinstance(value, dict)  # it begins with a brace
    yield 1, value


def _csv_rows(path: Path) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.DictReader(text_lines(path))
    try:
        for row in reader:
            yield reader.line_num, {name: cell for name, cell in row.items() if name is not None and cell != ""}
    except csv.Error as error:
        raise WorkloadError(f"not CSV: {error}", place=line_place(path, reader.line_num), fix=_FIX) from None


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    number = 0
    for batch in open_parquet(path).iter_batches(batch_size=_BATCH_ROWS):
        for row in batch.to_pylist():
            number += 1
            yield number, {name: cell for name, cell in row.items() if cell is not None}


def parsed(value: object) -> Any:
    """A cell that may be JSON text (CSV and databases hold objects so), parsed; anything else as it is."""
    if isinstance(value, str) and value[:1] in ("{", "[", '"'):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
