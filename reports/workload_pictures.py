"""The pictures of a workload: arrivals, burstiness, lengths, sessions, caches and copying.

Does not know what they mean for a config (`workload_meaning.py`). Each is empty where the workload does not say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from reports.chart import LEFT, TOP, Area, Axis, chart
from reports.numbers import three_digits
from reports.svg import LogScale, Scale, element, text, titled
from workloads.description import amount
from workloads.histograms import Histogram, JointHistogram
from workloads.profile import Arrivals, PrefixSharing, Repetition

_SHADES = 6  # of the joint picture, CSS classes h1 ... h6


def arrivals_picture(arrivals: Arrivals | None, *, width: float) -> str:
    """Requests a second over time as a filled step line, and the mean."""
    if arrivals is None or arrivals.over_time is None or len(arrivals.over_time.counts) < 2:
        return ""
    step, counts = arrivals.over_time.step_s, arrivals.over_time.counts
    rates = [count / step for count in counts]
    rest = arrivals.duration_s - step * (len(counts) - 1)
    rates[-1] = counts[-1] / rest if rest > 0.5 * step else rates[-2]  # a step cut short by the end tells little
    area = Area(width=width, height=220 if width > 500 else 200)
    x = Scale(0.0, arrivals.duration_s, LEFT, area.right)
    y = Scale(0.0, max(*rates, arrivals.rate_rps) * 1.06, area.bottom, TOP)
    steps = "".join(f"V{y(rate):.1f}H{x(min((i + 1) * step, x.high)):.1f}" for i, rate in enumerate(rates))
    path = f"M{LEFT:.1f} {area.bottom:.1f}{steps}V{area.bottom:.1f}Z"
    mean = y(arrivals.rate_rps)
    marks = [
        titled(f"requests a second, over {time_words(step)} each", element("path", d=path, class_="fill")),
        titled(
            f"mean: {three_digits(arrivals.rate_rps)} requests/s",
            element("path", d=f"M{LEFT:.1f} {mean:.1f}H{area.right:.1f}", class_="mean"),
        ),
    ]
    unit, name = _time_unit(arrivals.duration_s)
    in_units = Scale(0.0, x.high / unit, 0, 1)
    num = 9 if width > 500 else 4
    ticks = [value * unit for value in in_units.ticks(num)]
    x_axis = Axis(scale=x, name=f"{name} since the first request", write=lambda v: f"{v / unit:.6g}", ticks=ticks)
    y_axis = Axis(scale=y, name="requests / s", write=lambda v: f"{v:.6g}", ticks=y.ticks(4))
    peak = three_digits(max(rates))
    label = f"Arrivals: {three_digits(arrivals.rate_rps)} requests/s on average, at most {peak} in {time_words(step)}"
    return chart(area, x_axis, y_axis, marks, label=label)


def burstiness_picture(dispersion: Mapping[str, float], *, width: float) -> str:
    """Variance / mean of counts by window, on a logarithmic scale, with Poisson's 1 as the base line."""
    if not dispersion:
        return ""
    area = Area(width=width, height=230)
    values = [max(value, 1e-3) for value in dispersion.values()]
    y = LogScale(min(0.5, *values) * 0.8, max(4.0, *values) * 1.8, area.bottom, TOP)
    slot = (area.right - LEFT) / len(values)
    x = Scale(0.0, float(len(values)), LEFT, area.right)
    marks = []
    for i, (window, value) in enumerate(zip(dispersion, values, strict=True)):
        top, bottom = sorted((y(value), y(1.0)))
        at = LEFT + slot * (i + 0.5)
        bar = element("rect", x=at - slot * 0.3, y=top, width=slot * 0.6, height=max(bottom - top, 1), class_="bar")
        written = text(
            three_digits(value), at, (top if value >= 1 else bottom + 18) - 6, class_="value", text_anchor="middle"
        )
        marks.append(titled(f"{three_digits(value)} at {window} s", bar, written))
    one = y(1.0)
    marks.append(element("path", d=f"M{LEFT:.1f} {one:.1f}H{area.right:.1f}", class_="mean"))
    marks.append(text("Poisson", area.right, one + 13, class_="tick", text_anchor="end"))
    names = list(dispersion)
    x_axis = Axis(
        scale=x,
        name="window, s",
        write=lambda v: names[int(v)],
        ticks=[i + 0.5 for i in range(len(names))],
    )
    y_axis = Axis(scale=y, name="variance / mean", write=lambda v: f"{v:g}", ticks=y.ticks(4))
    label = "Burstiness: " + ", ".join(f"{three_digits(v)} at {w} s" for w, v in dispersion.items())
    return chart(area, x_axis, y_axis, marks, label=label)


def histogram_picture(
    histogram: Histogram | None, *, width: float, name: str, unit: str, marked: Mapping[str, float] | None = None
) -> str:
    """Share of the values by size, per doubling (so that areas compare), on a logarithmic axis.

    Args:
        marked: values to mark with a line and their name.
    """
    if histogram is None:
        return ""
    edges = [_from_zero(edge, histogram.edges) for edge in histogram.edges]
    total = sum(histogram.counts)
    densities = [
        100 * count / total / math.log2(high / low)
        for count, low, high in zip(histogram.counts, edges, edges[1:], strict=False)
    ]
    area = Area(width=width, height=230)
    x = LogScale(edges[0], edges[-1], LEFT, area.right)
    y = Scale(0.0, max(densities) * 1.14, area.bottom, TOP)
    marks = []
    for i, density in enumerate(densities):
        if not histogram.counts[i]:
            continue
        left, right = x(edges[i]), x(edges[i + 1])
        bar = element(
            "rect",
            x=left,
            y=y(density),
            width=max(right - left - 0.8, 0.8),
            height=area.bottom - y(density),
            class_="bar",
        )
        low, high = histogram.edges[i], histogram.edges[i + 1]
        marks.append(titled(f"{histogram.counts[i] / total:.1%} from {amount(low)} to {amount(high)} {unit}", bar))
    marks += _marked(marked or {}, x, area)
    zero = histogram.edges[0] == 0
    ticks = [tick for tick in x.ticks(6 if width > 400 else 4) if not (zero and tick < histogram.edges[1] * 0.99)]
    x_axis = Axis(scale=x, name=f"{name}, {unit}", write=amount, ticks=ticks)
    y_axis = Axis(scale=y, name="% per doubling", write=lambda v: f"{v:g}", ticks=y.ticks(4))
    told = ", ".join(f"{what} {amount(value)}" for what, value in (marked or {}).items())
    return chart(area, x_axis, y_axis, marks, label=f"Distribution of {name}: {told}")


def _from_zero(edge: float, edges: Sequence[float]) -> float:
    """Zero has no logarithm: its bin is drawn half as wide as a doubling, left of the next edge."""
    return edge if edge > 0 else edges[1] / 2**0.5


def _marked(marked: Mapping[str, float], x: LogScale, area: Area) -> list[str]:
    """Lines with names right of them, or left where the next line or the edge is near, or none where that is taken."""
    places = sorted((x(min(max(value, x.low), x.high)), what) for what, value in marked.items())
    limits = [(at, 2 * _NAME_WIDTH) for at, _ in places[1:]] + [(area.right, _NAME_WIDTH)]
    found, taken = [], LEFT
    for (at, what), (following, room) in zip(places, limits, strict=True):
        found.append(element("path", d=f"M{at:.1f} {area.bottom:.1f}V{TOP:.1f}", class_="marked"))
        is_left = following - at < room and at - _NAME_WIDTH >= taken
        if is_left or (at >= taken and following - at >= _NAME_WIDTH):
            anchor = "end" if is_left else "start"
            found.append(text(what, at + (-4 if is_left else 4), TOP + 9, class_="tick", text_anchor=anchor))
            taken = at if is_left else at + _NAME_WIDTH
    return found


_NAME_WIDTH = 30.0  # of p50 and the space beside it


def joint_picture(joint: JointHistogram | None, *, width: float) -> str:
    """Prompt against answer tokens: the darker, the more requests."""
    if joint is None:
        return ""
    area = Area(width=width, height=min(420.0, 0.62 * width + 60))
    xs = [_from_zero(edge, joint.x_edges) for edge in joint.x_edges]
    ys = [_from_zero(edge, joint.y_edges) for edge in joint.y_edges]
    x = LogScale(xs[0], xs[-1], LEFT, area.right)
    y = LogScale(ys[0], ys[-1], area.bottom, TOP)
    total, most = sum(map(sum, joint.counts)), max(map(max, joint.counts))
    marks = []
    for i, row in enumerate(joint.counts):
        for j, count in enumerate(row):
            if not count:
                continue
            shade = 1 + round((_SHADES - 1) * math.log(count) / math.log(most)) if most > 1 else _SHADES
            cell = element(
                "rect",
                x=x(xs[i]),
                y=y(ys[j + 1]),
                width=x(xs[i + 1]) - x(xs[i]) - 1,
                height=y(ys[j]) - y(ys[j + 1]) - 1,
                class_=f"h{shade}",
            )
            sides = f"{amount(joint.x_edges[i])} to {amount(joint.x_edges[i + 1])} in"
            sides += f", {amount(joint.y_edges[j])} to {amount(joint.y_edges[j + 1])} out"
            marks.append(titled(f"{count:,} requests ({count / total:.1%}): {sides}", cell))
    x_axis = Axis(scale=x, name="input tokens", write=amount, ticks=_not_in_zero(x, joint.x_edges, 9))
    y_axis = Axis(scale=y, name="output tokens", write=amount, ticks=_not_in_zero(y, joint.y_edges, 6))
    return chart(area, x_axis, y_axis, marks, label="Input tokens against output tokens", class_="joint")


def _not_in_zero(scale: LogScale, edges: Sequence[float], count: int) -> list[float]:
    return [tick for tick in scale.ticks(count) if edges[0] > 0 or tick >= edges[1] * 0.99]


def cache_picture(prefix: PrefixSharing | None, *, width: float) -> str:
    """Hit ratio of an LRU cache by its capacity, and the ideal as a line."""
    if prefix is None or len(prefix.lru) < 2:
        return ""
    area = Area(width=width, height=250)
    ideal = max(prefix.ideal_hit_ratio, prefix.lru[-1].hit_ratio)
    x = LogScale(float(prefix.lru[0].capacity), float(prefix.lru[-1].capacity), LEFT, area.right)
    y = Scale(0.0, max(0.02, ideal) * 112, area.bottom, TOP)
    points = [(x(size.capacity), y(100 * size.hit_ratio), size) for size in prefix.lru]
    line = "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py, _ in points)
    at = y(100 * ideal)
    marks = [
        element("path", d=f"M{LEFT:.1f} {at:.1f}H{area.right:.1f}", class_="mean"),
        text(f"no limit: {ideal:.1%}", LEFT + 6, at - 5, class_="tick"),
        element("path", d=line, class_="line"),
        *(
            titled(
                f"{size.hit_ratio:.1%} with {amount(size.capacity)} {prefix.unit}",
                element("circle", cx=px, cy=py, r=3.5, class_="dot-mark"),
            )
            for px, py, size in points
        ),
    ]
    name = f"capacity for cached prefixes, {prefix.unit}"
    x_axis = Axis(scale=x, name=name, write=amount, ticks=x.ticks(7 if width > 500 else 4))
    y_axis = Axis(scale=y, name="hit ratio, %", write=lambda v: f"{v:g}", ticks=y.ticks(4))
    told = ", ".join(f"{size.hit_ratio:.1%} at {amount(size.capacity)}" for size in prefix.lru)
    return chart(area, x_axis, y_axis, marks, label=f"Prefix-cache hit ratio by capacity: {told}")


def copy_picture(repetition: Repetition | None, *, width: float) -> str:
    """Requests by the tokens a step that a lookup drafter would reach on them."""
    if repetition is None:
        return ""
    values = repetition.per_request
    num_bins, low = 20, 1.0
    high = max(2.0, math.ceil(max(values) * 2) / 2)
    counts = [0] * num_bins
    for value in values:
        counts[min(num_bins - 1, int((value - low) / (high - low) * num_bins))] += 1
    area = Area(width=width, height=230)
    x, y = Scale(low, high, LEFT, area.right), Scale(0.0, 100 * max(counts) / len(values) * 1.1, area.bottom, TOP)
    marks = []
    for i, count in enumerate(counts):
        left, right = x(low + (high - low) * i / num_bins), x(low + (high - low) * (i + 1) / num_bins)
        top = y(100 * count / len(values))
        bar = element("rect", x=left, y=top, width=right - left - 0.8, height=area.bottom - top, class_="bar")
        marks += [titled(f"{count} requests", bar)] if count else []
    at = x(repetition.tokens_per_step.mean)
    marks.append(element("path", d=f"M{at:.1f} {area.bottom:.1f}V{TOP:.1f}", class_="marked"))
    marks.append(text("mean", at + 4, TOP + 9, class_="tick"))
    name = f"{repetition.basis} per step with lookup drafts"
    x_axis = Axis(scale=x, name=name, write=lambda v: f"{v:g}", ticks=x.ticks(6))
    y_axis = Axis(scale=y, name="% of requests", write=lambda v: f"{v:g}", ticks=y.ticks(4))
    mean = three_digits(repetition.tokens_per_step.mean)
    return chart(area, x_axis, y_axis, marks, label=f"{name.capitalize()}: {mean} on average")


def copy_share_picture(repetition: Repetition | None, *, width: float) -> str:
    """Share of the answers' n-grams that their prompts hold, by n."""
    if repetition is None or not repetition.copied:
        return ""
    area = Area(width=width, height=230)
    names = list(repetition.copied)
    slot = (area.right - LEFT) / len(names)
    x, y = Scale(0.0, float(len(names)), LEFT, area.right), Scale(0.0, 112.0, area.bottom, TOP)
    marks = []
    for i, share in enumerate(repetition.copied.values()):
        at, top = LEFT + slot * (i + 0.5), y(100 * share)
        bar = element("rect", x=at - slot * 0.3, y=top, width=slot * 0.6, height=area.bottom - top, class_="bar")
        marks += [bar, text(f"{share:.0%}", at, top - 6, class_="value", text_anchor="middle")]
    ticks = [i + 0.5 for i in range(len(names))]
    x_axis = Axis(scale=x, name=f"n ({repetition.basis})", write=lambda v: names[int(v)], ticks=ticks)
    y_axis = Axis(scale=y, name="% of n-grams", write=lambda v: f"{v:g}", ticks=[0, 25, 50, 75, 100])
    told = ", ".join(f"{share:.0%} of {n}-grams" for n, share in repetition.copied.items())
    return chart(area, x_axis, y_axis, marks, label=f"Copied from the prompt: {told}")


def _time_unit(seconds: float) -> tuple[float, str]:
    for unit, name, least in ((86400.0, "days", 3), (3600.0, "hours", 3), (60.0, "minutes", 5)):
        if seconds >= least * unit:
            return unit, name
    return 1.0, "seconds"


def time_words(seconds: float) -> str:
    """`30 s`, `5 minutes`, `2 hours`."""
    for unit, name in ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:g} {name}{'s' if seconds > unit else ''}"
    return f"{seconds:g} s"
