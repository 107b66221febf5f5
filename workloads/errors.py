"""Everything that can be wrong with a workload, a trace, a record file or a metric, in the user's words.

Does not know which command was run.

    WorkloadError
      UndefinedMetricError    a number that the records do not define
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


class WorkloadError(ValueError):
    """`what (place). What to do next`: the sentence the user reads."""

    def __init__(self, what: str, *, fix: str, place: str | None = None) -> None:
        super().__init__(f"{what} ({place}). {fix}" if place else f"{what}. {fix}")
        self.what = what
        self.fix = fix
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        """So that a client process can send it."""
        return _again, (type(self), self.what, self.fix, self.place)


def _again(kind: type[WorkloadError], what: str, fix: str, place: str | None) -> WorkloadError:
    return kind(what, fix=fix, place=place)


def row_place(path: Path | str | None, row: int, column: str) -> str:
    """Where a cell is; rows of tables count from 0, as pandas shows them."""
    return f"{path or 'workload'}:row {row}, column {column}"


def line_place(path: Path | str, line: int, field: str | None = None) -> str:
    """Where a field of a text file is; lines count from 1, as editors show them."""
    return f"{path}:line {line}" + (f", column {field}" if field else "")


class UndefinedMetricError(WorkloadError):
    """A number that these records do not define, e.g. a TTFT when no request completed; never reported as 0 or NaN."""
