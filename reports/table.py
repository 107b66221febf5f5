"""`Table`: rows of written cells, the common ground of Markdown, HTML and the terminal.

Does not know how it is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tone = Literal["", "good", "bad", "muted", "strong"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """`means` is a sentence for a reader without background."""

    name: str
    numeric: bool = False
    means: str = ""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is read, and what it sorts by when that is not the text."""

    text: str
    sort: float | None = None
    tone: Tone = ""
    title: str = ""


NOTHING = Cell(text="–", tone="muted")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A title, columns, rows of as many cells; `note` is told below it."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), f"{self.title}: ragged rows"

    def texts(self) -> list[list[str]]:
        """The cells' texts, row by row."""
        return [[cell.text for cell in row] for row in self.rows]
