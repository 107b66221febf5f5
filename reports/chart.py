"""A chart's frame: two axes with their names, grid lines and ticks, around marks that others draw.

Does not know what is plotted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reports.svg import LogScale, Scale, element, picture, text

LEFT, RIGHT, TOP, BOTTOM = 58.0, 14.0, 12.0, 46.0


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One direction: values to pixels, the values that are marked, how they are written, and the axis's name."""

    scale: Scale | LogScale
    name: str
    write: Callable[[float], str]
    ticks: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Area:
    """Where marks go, in pixels of a picture of this size."""

    width: float
    height: float

    @property
    def right(self) -> float:
        return self.width - RIGHT

    @property
    def bottom(self) -> float:
        return self.height - BOTTOM


def chart(area: Area, x: Axis, y: Axis, marks: Sequence[str], *, label: str, class_: str = "") -> str:
    """The picture: grid and ticks below the marks."""
    parts = [*(_x_tick(x, value, area) for value in x.ticks), *(_y_tick(y, value, area) for value in y.ticks)]
    base = element("path", d=f"M{LEFT:.0f} {area.bottom:.1f}H{area.right:.1f}", class_="base")
    x_name = text(x.name, (LEFT + area.right) / 2, area.height - 6, class_="axis", text_anchor="middle")
    middle = (TOP + area.bottom) / 2
    y_name = text(y.name, 11, middle, class_="axis", text_anchor="middle", transform=f"rotate(-90 11 {middle:.1f})")
    return picture(
        element("g", *parts, x_name, y_name) if parts else x_name + y_name,
        *marks,
        base,
        width=area.width,
        height=area.height,
        label=label,
        class_=f"picture chart {class_}".rstrip(),
    )


def _x_tick(axis: Axis, value: float, area: Area) -> str:
    at = axis.scale(value)
    line = element("path", d=f"M{at:.1f} {area.bottom:.1f}v4", class_="base")
    return line + text(axis.write(value), at, area.bottom + 18, class_="tick", text_anchor="middle")


def _y_tick(axis: Axis, value: float, area: Area) -> str:
    at = axis.scale(value)
    line = element("path", d=f"M{LEFT:.0f} {at:.1f}H{area.right:.1f}", class_="grid")
    return line + text(axis.write(value), LEFT - 7, at + 4, class_="tick", text_anchor="end")
