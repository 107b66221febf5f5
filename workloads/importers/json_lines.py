"""Reads JSON Lines, naming the line in every error.

Does not know what the objects mean.
"""

from __future__ import annotations

import codecs
import contextlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workloads.errors import WorkloadError, line_place
from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.importers.source_file import byte_lines

_NUM_TRIED = 20  # lines, for a first object


def json_lines(path: Path, repairs: Repairs = NO_REPAIRS) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) for every line that is not blank.

    Raises:
        WorkloadError: a line that is not a JSON object, not UTF-8, or too long.
    """
    for number, line in byte_lines(path, repairs):
        if line.strip():
            try:
                value = object_of(path, number, line)
            except WorkloadError as error:
                repairs.take("line_unreadable", error)
            else:
                yield number, value


def object_of(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """The object that a line is.

    Raises:
        WorkloadError: it is none.
    """
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
    """The object of the first line that is one, or None when the first lines are none."""
    try:
        for number, line in itertools.islice(byte_lines(path), _NUM_TRIED):
            with contextlib.suppress(WorkloadError):
                return object_of(path, number, line)
    except (WorkloadError, OSError):
        return None
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
