"""The picture of a plan: dollars an hour by latency limit, a stepped line for each kind of fleet.

Does not know what lies between the limits that were planned: a line keeps the tighter limit's price until the next.
"""

from __future__ import annotations

from collections.abc import Sequence

from reports.chart import LEFT, TOP, Area, Axis, chart
from reports.label_placement import Box, Label, place
from reports.numbers import three_digits
from reports.plan_page import MIXED, FleetPoint, Notch, PlanPage
from reports.svg import LogScale, Scale, element, text, titled

_NUM_COLOURS = 6  # CSS classes k0 ... k5, then again with other marks


def plan_picture(page: PlanPage, *, width: float) -> str:
    """Empty with fewer than two scalings, or when no fleet holds any of them."""
    prices = [p.usd_per_hour for notch in page.notches for p in notch.points if p.usd_per_hour is not None]
    if len(page.notches) < 2 or not prices:
        return ""
    area = Area(width=width, height=430.0 if width > 500 else 330.0)
    x = LogScale(page.notches[0].factor * 0.93, page.notches[-1].factor * 1.3, LEFT, area.right)
    y = _money_scale(prices, area)
    ticks = {notch.factor: _tick(notch, width) for notch in page.notches}
    line = element("path", d=f"M{x(1.0):.1f} {TOP:.0f}V{area.bottom:.1f}", class_="marked")
    marks = [titled("the limits that were asked for", line)]
    marks += [mark for at, kind in enumerate(page.kinds) for mark in _series(page, kind, at, x, y)]
    marks.append(_labels(page, x, y, Box(LEFT, TOP, area.right, area.bottom)))
    name = page.asked.limits if width > 500 else "the limits"
    x_axis = Axis(scale=x, name=f"tighter  ←  {name}  →  looser", write=lambda factor: ticks[factor], ticks=list(ticks))
    y_axis = Axis(scale=y, name="$ / hour", write=lambda usd: f"${usd:,.6g}", ticks=y.ticks(6))
    return chart(area, x_axis, y_axis, marks, label=_spoken(page), class_="plan")


def colour(at: int, kind: str) -> str:
    """CSS class of a kind of fleet."""
    return "kmixed" if kind == MIXED else f"k{at % _NUM_COLOURS}"


def _money_scale(prices: Sequence[float], area: Area) -> Scale | LogScale:
    """From 0; logarithmic where the dearest would press the rest together."""
    low, high = min(prices), max(prices)
    if high > 8 * low:
        return LogScale(low / 1.5, high * 1.3, area.bottom, TOP)
    return Scale(0.0, high * 1.12, area.bottom, TOP)


def _tick(notch: Notch, width: float) -> str:
    times = f"{notch.factor:g}x" if notch.factor != 1 else "asked"
    return times if ";" in notch.limits or width <= 500 else f"{times}: {notch.limits.split('<')[-1]}"


def _held(page: PlanPage, kind: str) -> list[tuple[Notch, FleetPoint, float]]:
    found = [(notch, notch.of(kind)) for notch in page.notches]
    return [(n, p, p.usd_per_hour) for n, p in found if p is not None and p.usd_per_hour is not None]


def _series(page: PlanPage, kind: str, at: int, x: LogScale, y: Scale | LogScale) -> list[str]:
    held = _held(page, kind)
    if not held:
        return []
    css, marks = colour(at, kind), []
    first, *rest = held
    steps = "".join(f"H{x(notch.factor):.1f}V{y(usd):.1f}" for notch, _, usd in rest)
    marks.append(element("path", d=f"M{x(first[0].factor):.1f} {y(first[2]):.1f}{steps}", class_=f"run {css}"))
    for notch, point, usd in held:
        hover = f"{point.kind}, {notch.limits}: {point.fleet}, ${three_digits(usd)} an hour, predicted"
        marks.append(titled(hover, _shape(_source(page, kind), x(notch.factor), y(usd), f"{css} point")))
    return marks


def _source(page: PlanPage, kind: str) -> str:
    return next((basis.source for basis in page.bases if basis.sku == kind), MIXED)


def _shape(source: str, x: float, y: float, css: str) -> str:
    """A disc rests on silicon tables, a diamond on a roofline, a square on a calibration; a ring is a mixed fleet."""
    if source == MIXED:
        return element("circle", cx=x, cy=y, r=8, class_=f"{css} hollow")
    if source == "roofline":
        return element("path", d=f"M{x:.1f} {y - 6.5:.1f}l6.5 6.5l-6.5 6.5l-6.5 -6.5z", class_=css)
    if source == "calibrated":
        return element("rect", x=x - 5, y=y - 5, width=10, height=10, class_=css)
    return element("circle", cx=x, cy=y, r=5.5, class_=css)


def _labels(page: PlanPage, x: LogScale, y: Scale | LogScale, frame: Box) -> str:
    """Each kind by name beside its last point."""
    ends = [(kind, held[-1]) for kind in page.kinds if (held := _held(page, kind))]
    marks = [(x(n.factor), y(usd)) for kind in page.kinds for n, _, usd in _held(page, kind)]
    labels = [Label(kind, x(n.factor), y(usd)) for kind, (n, _, usd) in ends]
    parts = [
        text(label.text, at.x, at.y, class_="name", text_anchor=at.anchor)
        for label, at in zip(labels, place(labels, marks, frame), strict=True)
    ]
    return element("g", *parts) if parts else ""


def _spoken(page: PlanPage) -> str:
    told = []
    for notch in page.notches:
        best = notch.cheapest
        told.append(f"{notch.limits}: " + (f"${three_digits(best.usd_per_hour or 0)} an hour" if best else "no fleet"))
    return "Predicted dollars an hour by latency limit. " + ". ".join(told)
