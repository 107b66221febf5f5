"""Reads JSON Lines, naming the line in every error.

Does not know what the objects mean.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workloads.errors import WorkloadError, line_place
from workloads.importers.source_file import byte_lines


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) for every line that is not blank.

    Raises:
        WorkloadError: a line that is not a JSON object, not UTF-8, or too long.
    """
    for number, line in byte_lines(path):
        if line.strip():
            yield number, _object(path, number, line)


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line)
    except (ValueError, RecursionError) as error:
        fix = "Correct the line, or give the file's format with --format"
        raise WorkloadError(f"not JSON: {error}", place=line_place(path, number), fix=fix) from None
    if not isinstance(value, dict):
        fix = "Give a file with one JSON object a line"
        raise WorkloadError("not a JSON object", place=line_place(path, number), fix=fix)
    return value


def first_object(path: Path) -> dict[str, Any] | None:
    """The first line's object, or None when it is none."""
    try:
        return next((value for _, value in json_lines(path)), None)
    except (WorkloadError, OSError):
        return None


def count_in(value: dict[str, Any], name: str, path: Path, line: int) -> int | None:
    """A token count, None when absent or null.

    Raises:
        WorkloadError: not a whole number >= 0.
    """
    count = value.get(name)
    if count is None:
        return None
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        what = f"{name} is {count!r:.40}"
        raise WorkloadError(what, place=line_place(path, line, name), fix="Give a whole number >= 0")
    return count
