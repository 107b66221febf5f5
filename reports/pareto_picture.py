"""The Pareto picture: latency against cost coloured by quality; without costs, latency against quality.

Does not know which trials are on the front: the study says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optimizer.results import Provenance, StudyResult, TrialResult
from reports.comparison import chosen_word, recommended_trial
from reports.label_placement import Box, Label, place
from reports.measured import COST, LATENCY, QUALITY, estimate_cell, is_usable, number_of
from reports.numbers import has_interval
from reports.svg import Scale, around, element, picture, text, titled
from reports.words import metric_words
from workloads.estimate import Estimate

_LEFT, _RIGHT, _TOP, _BOTTOM = 78.0, 18.0, 16.0, 50.0
_SHADES = ((0.99, "q-high", "quality 0.99 or more"), (0.97, "q-mid", "0.97 to 0.99"), (-1.0, "q-low", "below 0.97"))
_UNKNOWN = ("q-none", "quality not measured")
_MANY = 40  # from here on only the front is numbered


@dataclass(frozen=True, kw_only=True)
class Point:
    """One trial in the picture."""

    trial: TrialResult
    x: Estimate
    y: Estimate
    on_front: bool
    role: str  # "default", "recommended", "default and recommended" or ""


def pareto_picture(study: StudyResult, *, width: float) -> str:
    """Empty when no two numbers can be plotted against each other."""
    metric = _vertical(study)
    points = _points(study, metric) if metric else []
    if not points or metric is None:
        return ""
    height = min(440.0, width * 0.86)
    x = Scale(*_range([p.x for p in points]), _LEFT, width - _RIGHT)
    y = Scale(*_range([p.y for p in points]), height - _BOTTOM, _TOP)
    frame = Box(_LEFT, _TOP, width - _RIGHT, height - _BOTTOM)
    marks = [_mark(point, x, y) for point in sorted(points, key=lambda p: (p.on_front, bool(p.role)))]
    parts = [
        _axes(x, y, metric, width, height),
        _front_line(points, x, y, metric),
        *marks,
        _labels(points, x, y, frame),
    ]
    return picture(*parts, width=width, height=height, label=_spoken(points, metric), class_="picture pareto")


def shades(study: StudyResult) -> list[tuple[str, str]]:
    """CSS class and meaning of the colours that occur."""
    found = {shade(trial)[0] for trial in study.trials if is_usable(trial) and number_of(trial, LATENCY)}
    return [pair for pair in [*((c, m) for _, c, m in _SHADES), _UNKNOWN] if pair[0] in found]


def shade(trial: TrialResult) -> tuple[str, str]:
    quality = number_of(trial, QUALITY)
    if quality is None:
        return _UNKNOWN
    return next((css, means) for limit, css, means in _SHADES if quality.value >= limit)


def axis_words(study: StudyResult) -> str:
    """What the picture plots, for its caption; empty when there is none."""
    metric = _vertical(study)
    if metric is None:
        return ""
    better = "lower left is better" if metric == COST else "upper left is better"
    return f"How long answers take (p95 end to end) against {metric_words(metric).name}; {better}"


def _vertical(study: StudyResult) -> str | None:
    usable = [trial for trial in study.trials if is_usable(trial) and number_of(trial, LATENCY)]
    return next((m for m in (COST, QUALITY) if any(number_of(t, m) for t in usable)), None)


def _points(study: StudyResult, metric: str) -> list[Point]:
    found = []
    for trial in study.trials:
        x, y = number_of(trial, LATENCY), number_of(trial, metric)
        if is_usable(trial) and x and y:
            on_front = trial.number in study.front
            found.append(Point(trial=trial, x=x, y=y, on_front=on_front, role=_role(study, trial)))
    return found


def _role(study: StudyResult, trial: TrialResult) -> str:
    chosen = recommended_trial(study)
    is_chosen = chosen is not None and chosen.number == trial.number
    if is_chosen:
        word = chosen_word(study)
        return f"default, {word}" if trial.number == 0 else word
    return "default" if trial.number == 0 else ""


def _range(estimates: Sequence[Estimate]) -> tuple[float, float]:
    ends = [end for e in estimates for end in ((e.low, e.high) if has_interval(e) else (e.value,))]
    return around(ends)


def _axes(x: Scale, y: Scale, metric: str, width: float, height: float) -> str:
    bottom, right = height - _BOTTOM, width - _RIGHT
    parts = [_x_tick(value, x(value), bottom) for value in x.ticks(4 if width < 500 else 7)]
    parts += [_y_tick(value, y(value), right, metric) for value in y.ticks(6)]
    middle = ((_LEFT + right) / 2, (_TOP + bottom) / 2)
    parts.append(text("p95 end-to-end latency, ms", middle[0], height - 10, class_="axis", text_anchor="middle"))
    name = "USD per million tokens" if metric == COST else metric_words(metric).name
    turned = f"rotate(-90 12 {middle[1]:.1f})"
    parts.append(text(name, 12, middle[1], class_="axis", text_anchor="middle", transform=turned))
    return element("g", *parts)


def _x_tick(value: float, at: float, bottom: float) -> str:
    line = element("path", d=f"M{at:.1f} {_TOP:.0f}V{bottom:.0f}", class_="grid")
    return line + text(f"{value:,.6g}", at, bottom + 18, class_="tick", text_anchor="middle")


def _y_tick(value: float, at: float, right: float, metric: str) -> str:
    line = element("path", d=f"M{_LEFT:.0f} {at:.1f}H{right:.0f}", class_="grid")
    written = f"{value:.6g}" if metric == QUALITY else f"${value:.6g}"
    return line + text(written, _LEFT - 8, at + 4, class_="tick", text_anchor="end")


def _front_line(points: list[Point], x: Scale, y: Scale, metric: str) -> str:
    """Steps along the trials that no other one beats in both directions, of those that meet every limit if any do."""
    candidates = [p for p in points if p.on_front and p.trial.feasible] or [p for p in points if p.on_front]
    sign = -1 if metric == QUALITY else 1
    best: list[Point] = []
    for point in sorted(candidates, key=lambda p: (p.x.value, sign * p.y.value)):
        if not best or sign * point.y.value < sign * best[-1].y.value:
            best.append(point)
    if len(best) < 2:
        return ""
    first, *rest = best
    steps = "".join(f"H{x(p.x.value):.1f}V{y(p.y.value):.1f}" for p in rest)
    return element("path", d=f"M{x(first.x.value):.1f} {y(first.y.value):.1f}{steps}", class_="front")


def _mark(point: Point, x: Scale, y: Scale) -> str:
    at_x, at_y = x(point.x.value), y(point.y.value)
    parts = []
    if has_interval(point.x):
        parts.append(element("path", d=f"M{x(point.x.low):.1f} {at_y:.1f}H{x(point.x.high):.1f}", class_="error"))
    if has_interval(point.y):
        parts.append(element("path", d=f"M{at_x:.1f} {y(point.y.low):.1f}V{y(point.y.high):.1f}", class_="error"))
    if "recommended" in point.role or "nearest" in point.role:
        parts.append(element("circle", cx=at_x, cy=at_y, r=13, class_="ring"))
    css = " ".join(
        ["mark", shade(point.trial)[0]] + (["predicted"] if point.trial.provenance is Provenance.PREDICTED else [])
    )
    parts.append(_shape(point.trial, at_x, at_y, css))
    state = "kept" if point.on_front or point.role else "beaten"
    return titled(_hover(point), *parts, class_=state)


def _shape(trial: TrialResult, x: float, y: float, css: str) -> str:
    """A disc meets every limit, a diamond misses one."""
    if trial.feasible:
        return element("circle", cx=x, cy=y, r=7, class_=css)
    return element("path", d=f"M{x:.1f} {y - 8:.1f}l8 8l-8 8l-8 -8z", class_=css)


def _hover(point: Point) -> str:
    trial = point.trial
    numbers = [
        f"{metric_words(metric).name} {estimate_cell(estimate, metric).text}"
        for metric in (LATENCY, COST, QUALITY)
        if (estimate := number_of(trial, metric))
    ]
    role = f" ({point.role})" if point.role else ""
    missed = [f"misses {o.slo}" for o in trial.slos if o.violation > 0]
    return f"trial {trial.number}{role}, {trial.provenance.value}: {'; '.join([*numbers, *missed])}"


def _labels(points: list[Point], x: Scale, y: Scale, frame: Box) -> str:
    """Roles in words, other trials by number; of many trials only the front's."""
    shown = [point for point in points if point.role or point.on_front or len(points) <= _MANY]
    shown.sort(key=lambda point: (not point.role, not point.on_front))
    labels = [Label(_label(point), x(point.x.value), y(point.y.value)) for point in shown]
    marks = [(x(point.x.value), y(point.y.value)) for point in points]
    parts = [
        text(label.text, at.x, at.y, class_="label role" if point.role else "label", text_anchor=at.anchor)
        for point, label, at in zip(shown, labels, place(labels, marks, frame), strict=True)
    ]
    return element("g", *parts)


def _label(point: Point) -> str:
    return f"{point.role} · {point.trial.number}" if point.role else str(point.trial.number)


def _spoken(points: list[Point], metric: str) -> str:
    return f"Trials by p95 end-to-end latency and {metric_words(metric).name}: " + ". ".join(_hover(p) for p in points)
