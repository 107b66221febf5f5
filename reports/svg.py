"""Small pieces of SVG: escaped elements, linear scales, round ticks.

Does not know studies. Colours are CSS classes, so that one picture serves light, dark and paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


def element(name: str, *children: str, **attributes: object) -> str:
    """`class_` and names with underscores become `class` and hyphens; children are markup already."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_attribute(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{written}>{''.join(children)}</{name}>" if children else f"<{name}{written}/>"


def text(content: str, x: float, y: float, **attributes: object) -> str:
    """A text element; the content is escaped."""
    return element("text", escape(content), x=x, y=y, **attributes)


def titled(title: str, *children: str, **attributes: object) -> str:
    """A group with a hover title, which screen readers read too."""
    return element("g", element("title", escape(title)), *children, **attributes)


def picture(*children: str, width: float, height: float, label: str, class_: str) -> str:
    """A responsive picture with a spoken label."""
    return element(
        "svg",
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        width=f"{width:g}",
        height=f"{height:g}",
        role="img",
        aria_label=label,
        class_=class_,
    )


def _attribute(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] to pixels [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        return self.start + (self.end - self.start) * ((value - self.low) / span if span else 0.5)

    def ticks(self, count: int = 5) -> list[float]:
        """About `count` round values inside the scale."""
        step = _round_step((self.high - self.low) / count) if self.high > self.low else 1.0
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def _round_step(raw: float) -> float:
    power: float = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= raw * 0.999)


def around(values: Sequence[float], *, share: float = 0.08, from_zero: bool = False) -> tuple[float, float]:
    """The values' range with some air; a single value gets air of its own size."""
    low, high = min(values), max(values)
    air = (high - low) * share or abs(high) * share or 1.0
    return (0.0 if from_zero else low - air), high + air


@dataclass(frozen=True)
class LogScale:
    """Maps [low, high], both > 0, to pixels [start, end] by their logarithms."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = math.log(self.high / self.low)
        share = math.log(max(value, self.low) / self.low) / span if span else 0.5
        return self.start + (self.end - self.start) * share

    def ticks(self, count: int = 5) -> list[float]:
        """About `count` of 1, 2, 5, 10, ...; powers of ten alone where those are enough."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for factors in ((1, 2, 5), (1, 3), (1,)):
            found = [f * 10.0**d for d in decades for f in factors]
            found = [value for value in found if self.low * 0.999 <= value <= self.high * 1.001]
            if len(found) <= count + 1:
                return found
        return found[:: -(-len(found) // count)]
