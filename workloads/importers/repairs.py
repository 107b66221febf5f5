"""What `--repair` does about a malformed source: each repair has a kind and is counted; without it errors are raised.

Does not know formats. No repair makes up a measurement: it drops a row, leaves a value unknown, or reads it as meant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, TypeVar

from workloads.errors import WorkloadError, line_place

MOST_DROPPED = 0.05  # of the rows; more is said loudly


class Placed(Protocol):
    """Anything of a source that knows where it stands there."""

    @property
    def path(self) -> Path: ...

    @property
    def line(self) -> int: ...


_Item = TypeVar("_Item", bound=Placed)
_Made = TypeVar("_Made")

# kind: (what is counted, what is done about it)
KINDS: Final[Mapping[str, tuple[str, str]]] = {
    "gzip_cut": ("gzip files cut short or damaged", "keeps the rows before the damage"),
    "wide_text": ("files in UTF-16 or UTF-32", "reads them as such"),
    "line_cut": ("last lines cut in the middle", "drops the line"),
    "line_too_long": ("lines that are too long", "drops the line"),
    "line_unreadable": ("lines that are no JSON, CSV or UTF-8", "drops the line"),
    "array_cut": ("JSON arrays cut short", "keeps the items before the cut"),
    "group_damaged": ("rows in damaged parts of parquet files", "drops those rows"),
    "row_impossible": ("rows without a field they need, or with an impossible one (NaN, negative)", "drops the row"),
    "value_impossible": ("impossible values that a request can do without", "leaves the value unknown"),
    "times_in_ms": ("times in milliseconds among seconds", "brings them to seconds"),
    "clock_back": ("times the clock goes back", "puts the rows in order of time"),
    "id_twice": ("rows that occur twice", "keeps the first"),
    "id_reused": ("ids of different rows that are the same", "adds a number to the later one"),
    "parent_missing": ("links to parents that are missing or of another session", "removes the link"),
    "parent_cycle": ("links by which requests wait for themselves", "removes the link to the later row"),
}
DROPPING: Final = ("line_cut", "line_too_long", "line_unreadable", "group_damaged", "row_impossible", "id_twice")
_SHAPE_ERRORS = (AttributeError, TypeError, KeyError, IndexError, OverflowError, ValueError)


class Repairs:
    """Counts what was repaired while one source was read.

    Args:
        allowed: False: nothing is repaired, and `take` raises.
    """

    def __init__(self, *, allowed: bool = True) -> None:
        self.allowed = allowed
        self.counts: Counter[str] = Counter()
        self.firsts: dict[str, str] = {}  # kind: the first one, as its error told it

    def take(self, kind: str, error: WorkloadError, *, num: int = 1) -> None:
        """Count `num` repairs of what the error says.

        Raises:
            WorkloadError: the error, with `--repair` as another way out, where repairs are not allowed.
        """
        if not self.allowed:
            fix = f"{error.fix}, or import with --repair, which {KINDS[kind][1]}"
            raise WorkloadError(error.what, place=error.place, fix=fix) from None
        self.counts[kind] += num
        self.firsts.setdefault(kind, f"{error.what} ({error.place})" if error.place else error.what)

    def row(self, path: Path, line: int) -> Row:
        """`with repairs.row(path, line):` around what makes requests of one row, which is left out where it cannot."""
        return Row(self, path, line)

    def made(self, items: Iterable[_Item], make: Callable[[_Item], _Made]) -> Iterator[_Made]:
        """What `make` makes of each item, without those of which it cannot."""
        for item in items:
            with self.row(item.path, item.line):
                yield make(item)

    def reset(self) -> None:
        """The source is read again from its beginning."""
        self.counts.clear()
        self.firsts.clear()

    @property
    def num_dropped(self) -> int:
        """Rows left out."""
        return sum(self.counts[kind] for kind in DROPPING)

    def told(self) -> list[str]:
        """A line a kind: `rows that occur twice: 3 (keeps the first)`."""
        return [
            f"{KINDS[kind][0]}: {count} ({KINDS[kind][1]}{self._first(kind)})" for kind, count in self.counts.items()
        ]

    def _first(self, kind: str) -> str:
        return f"; first: {self.firsts[kind]}" if kind in self.firsts else ""

    def warning(self, num_kept: int) -> str | None:
        """Said loudly where more than `MOST_DROPPED` of the rows are gone."""
        num_rows = num_kept + self.num_dropped
        if self.num_dropped <= MOST_DROPPED * num_rows:
            return None
        share = f"{self.num_dropped} of {num_rows} rows ({self.num_dropped / num_rows:.1%})"
        return f"{share} were dropped: what is left may not be like the traffic. Look for what damaged the source"


def repair_notes(counts: Mapping[str, int]) -> list[str]:
    """The counts of a workload's metadata in words, for whoever relies on it."""
    return [f"repaired on import: {KINDS.get(kind, (kind, ''))[0]}: {count:,}" for kind, count in counts.items()]


NO_REPAIRS: Final = Repairs(allowed=False)


class Row:
    """Turns what one row cannot be made of into one error, and takes it."""

    __slots__ = ("_line", "_path", "_repairs")

    def __init__(self, repairs: Repairs, path: Path, line: int) -> None:
        self._repairs, self._path, self._line = repairs, path, line

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if error is None or not isinstance(error, _SHAPE_ERRORS):
            return False
        if not isinstance(error, WorkloadError):
            what = f"the row is not laid out as the format's: {str(error) or type(error).__name__:.80}"
            error = WorkloadError(
                " ".join(what.split()), place=line_place(self._path, self._line), fix="Correct the row"
            )
        self._repairs.take("row_impossible", error)
        return True
