"""Where labels go so that they cover neither each other nor the marks: greedy, the most important first.

Does not draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

_MARK, _LETTER, _HEIGHT = 9.0, 7.4, 15.0


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Shared area."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(wide, 0.0) * max(high, 0.0)


class Label(NamedTuple):
    """Text to be put beside the mark at (x, y)."""

    text: str
    x: float
    y: float


class Place(NamedTuple):
    """Where the text starts or ends, on its baseline."""

    x: float
    y: float
    anchor: Literal["start", "end", "middle"]


def place(labels: Sequence[Label], marks: Sequence[tuple[float, float]], frame: Box) -> list[Place]:
    """One place a label, in the order given; the earlier ones choose first."""
    taken = [Box(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in marks]
    places = []
    for label in labels:
        chosen = min(_candidates(label), key=lambda candidate: _cost(_box(label, candidate), taken, frame))
        places.append(chosen)
        taken.append(_box(label, chosen))
    return places


def _candidates(label: Label) -> list[Place]:
    """Beside the mark first, then above and below, then farther off."""
    x, y = label.x, label.y
    return [
        Place(x + 15, y + 4, "start"),
        Place(x - 15, y + 4, "end"),
        Place(x + 11, y - 11, "start"),
        Place(x + 11, y + 20, "start"),
        Place(x - 11, y - 11, "end"),
        Place(x - 11, y + 20, "end"),
        Place(x, y - 18, "middle"),
        Place(x, y + 28, "middle"),
    ]


def _box(label: Label, at: Place) -> Box:
    width = _LETTER * len(label.text)
    left = {"start": at.x, "end": at.x - width, "middle": at.x - width / 2}[at.anchor]
    return Box(left, at.y - _HEIGHT + 3, left + width, at.y + 3)


def _cost(box: Box, taken: Sequence[Box], frame: Box) -> float:
    outside = (box.right - box.left) * (box.bottom - box.top) - box.overlap(frame)
    return 10 * outside + sum(box.overlap(other) for other in taken)
