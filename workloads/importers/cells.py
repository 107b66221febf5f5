"""Numbers and times out of a source's row, naming file, line and column when one is impossible.

Does not know formats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workloads.errors import WorkloadError, line_place
from workloads.importers.repairs import NO_REPAIRS, Repairs


@dataclass(frozen=True)
class Cells:
    """One row and where it is; text cells of CSV files are read as numbers."""

    path: Path
    line: int
    row: Mapping[str, Any]
    repairs: Repairs = NO_REPAIRS

    def count(self, name: str) -> int | None:
        """A whole number >= 0; None when absent."""
        value = self.row.get(name)
        if value is None:
            return None
        if isinstance(value, str) and value.strip().isdecimal():
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
            raise self.misfit(name, "Give a whole number >= 0")
        return value

    def needed_count(self, name: str) -> int:
        """A whole number >= 0 that must be there."""
        found = self.count(name)
        if found is None:
            raise self.misfit(name, "Give a whole number >= 0 in every row")
        return found

    def number(self, name: str, *, least: float = -math.inf) -> float | None:
        """A finite number; None when absent."""
        value = self.row.get(name)
        if value is None:
            return None
        try:
            found = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            found = math.nan
        if not math.isfinite(found) or found < least:
            raise self.misfit(name, "Give a finite number" + (f" >= {least:g}" if math.isfinite(least) else ""))
        return found

    def spare_count(self, name: str) -> int | None:
        """As `count`, of what a request can do without: repaired, an impossible one is None."""
        try:
            return self.count(name)
        except WorkloadError as error:
            self.repairs.take("value_impossible", error)
            return None

    def spare_number(self, name: str) -> float | None:
        """A number >= 0 that a request can do without: repaired, an impossible one is None."""
        try:
            return self.number(name, least=0)
        except WorkloadError as error:
            self.repairs.take("value_impossible", error)
            return None

    def needed_number(self, name: str) -> float:
        """A finite number that must be there."""
        found = self.number(name)
        if found is None:
            raise self.misfit(name, "Give a finite number in every row")
        return found

    def stamp(self, name: str) -> float | None:
        """Seconds since 1970 of a time; see `epoch_seconds`."""
        value = self.row.get(name)
        if value is None:
            return None
        found = epoch_seconds(value)
        if found is None:
            raise self.misfit(name, "Give seconds since 1970 or an ISO 8601 time")
        return found

    def hashes(self, name: str) -> tuple[int, ...] | None:
        """A list of block ids; None when absent."""
        value = self.row.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(type(block) is int and abs(block) < 2**63 for block in value):
            raise self.misfit(name, "Give a list of whole numbers")
        return tuple(value)

    def misfit(self, name: str, fix: str) -> WorkloadError:
        value = self.row.get(name)
        what = f"no {name}" if value is None else f"{name} is {value!r:.40}"
        return WorkloadError(what, place=line_place(self.path, self.line, name), fix=fix)


def epoch_seconds(value: object) -> float | None:
    """Seconds since 1970 of a number of seconds (ms, µs or ns told by its size), an ISO 8601 text, or a datetime."""
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return _iso_seconds(str(value))
    if not math.isfinite(number):
        return None
    unit = next((10**k for limit, k in ((1e17, 9), (1e14, 6), (1e11, 3)) if abs(number) >= limit), 1)
    return number / unit


def _iso_seconds(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def iso_time(seconds: float | None) -> str | None:
    """ISO 8601 of seconds since 1970."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
