"""Paired bars: default and recommended for every metric, with intervals, each metric on a scale from zero.

Does not know where the numbers come from.
"""

from __future__ import annotations

from reports.comparison import Pair
from reports.measured import estimate_cell
from reports.numbers import has_interval, times_better
from reports.svg import Scale, element, picture, text, titled
from workloads.estimate import Estimate

_ROW, _BAR, _TOP = 74.0, 17.0, 8.0


def interval_picture(pairs: list[Pair], *, width: float) -> str:
    """None of the metrics shares a scale with another: only the two bars of a pair compare."""
    shown = [pair for pair in pairs if pair.improvement is not None]
    rows = [_row(pair, index, width) for index, pair in enumerate(shown)]
    label = "; ".join(_spoken(pair) for pair in shown)
    height = _TOP + _ROW * len(shown)
    return picture(*rows, width=width, height=height, label=label, class_="picture intervals")


def _row(pair: Pair, index: int, width: float) -> str:
    top = _TOP + _ROW * index
    room = 0.46 if width < 500 else 0.34
    largest = max(end for e in (pair.default, pair.recommended) for end in (e.value, _high(e)))
    scale = Scale(0.0, largest, 0.0, width * (1 - room))
    gain = times_better(pair.improvement) if pair.improvement else ""
    tone = ""
    if pair.is_proved and pair.improvement:
        tone = " good" if pair.improvement.value > 1 else " bad"
    source = "" if width < 500 else f" · {pair.source}"
    return element(
        "g",
        text(f"{pair.words.name}{source}", 0, top + 12, class_="name"),
        text(gain, width, top + 12, class_=f"gain{tone}", text_anchor="end"),
        _bar(pair, pair.default, "default", top + 20, scale),
        _bar(pair, pair.recommended, "recommended", top + 20 + _BAR + 3, scale),
    )


def _bar(pair: Pair, estimate: Estimate, who: str, top: float, scale: Scale) -> str:
    written = estimate_cell(estimate, pair.metric).text
    middle = top + _BAR / 2
    end = scale(_high(estimate))
    parts = [element("rect", x=0, y=top, width=max(scale(estimate.value), 1.0), height=_BAR, rx=2, class_=f"bar {who}")]
    if has_interval(estimate):
        low = scale(max(estimate.low, 0.0))
        ends = f"M{low:.1f} {middle - 4:.1f}v8M{end:.1f} {middle - 4:.1f}v8"
        line = f"M{low:.1f} {middle:.1f}H{end:.1f}{ends}"
        parts += [element("path", d=line, class_=css) for css in ("halo", "whisker")]
    parts.append(text(written, end + 8, middle + 4, class_="value"))
    return titled(f"{who}: {pair.words.name} {written}", *parts)


def _high(estimate: Estimate) -> float:
    return estimate.high if has_interval(estimate) else estimate.value


def _spoken(pair: Pair) -> str:
    values = [estimate_cell(e, pair.metric).text for e in (pair.default, pair.recommended)]
    return f"{pair.words.name}: default {values[0]}, recommended {values[1]}"
