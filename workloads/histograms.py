"""Counts by size: of tokens and seconds, one by one or jointly, on bins that grow; and of arrivals over time.

Does not know what is counted. Bins are fixed beforehand, so that counts of parts add up to the counts of the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

_LARGEST_TOKENS = 1 << 24
_LARGEST_S = 1e6
_MOST_TIME_BINS = 240
_MOST_JOINT_BINS = 24  # in a direction
_TIME_BINS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """`counts[i]` values are in [`edges[i]`, `edges[i + 1]`); empty bins at the ends are left out."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class JointHistogram:
    """`counts[i][j]` pairs have x in x-bin i and y in y-bin j."""

    x_edges: tuple[float, ...]
    y_edges: tuple[float, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeSeries:
    """`counts[i]` events in [i `step_s`, (i + 1) `step_s`); the last step may be cut by the end."""

    step_s: float
    counts: tuple[int, ...]


def token_edges(steps_per_doubling: int) -> Floats:
    """0, 1, 2, ... then whole numbers that grow by the same factor."""
    num = int(np.log2(_LARGEST_TOKENS)) * steps_per_doubling
    grown = np.ceil(2.0 ** (np.arange(num + 1) / steps_per_doubling) - 1e-9)
    return np.unique(np.concatenate([[0.0], grown]))


def second_edges() -> Floats:
    """0, then from 1 ms on four bins to a decade and a half, up to a million seconds."""
    return np.concatenate([[0.0], 10.0 ** np.arange(-3, np.log10(_LARGEST_S) + 0.01, 0.25)])


class BinCounter:
    """Counts values table by table; what lies beyond the last edge is counted in the last bin."""

    def __init__(self, edges: Floats) -> None:
        self.edges = edges
        self.counts: Counts = np.zeros(len(edges) - 1, np.int64)

    def feed(self, values: npt.NDArray[np.floating]) -> None:
        """Take values >= 0; NaN is not counted."""
        known = values[~np.isnan(values)]
        self.counts += np.bincount(bins(self.edges, known), minlength=len(self.counts))

    def result(self) -> Histogram | None:
        """None when nothing was counted."""
        if not self.counts.any():
            return None
        first, last = _span(self.counts)
        return Histogram(
            edges=tuple(self.edges[first : last + 2].tolist()), counts=tuple(self.counts[first : last + 1].tolist())
        )


class PairCounter:
    """Counts pairs table by table."""

    def __init__(self, edges: Floats) -> None:
        self.edges = edges
        self.counts: Counts = np.zeros((len(edges) - 1, len(edges) - 1), np.int64)

    def feed(self, xs: npt.NDArray[np.floating], ys: npt.NDArray[np.floating]) -> None:
        """Take pairs; those of which one is NaN are not counted."""
        known = ~(np.isnan(xs) | np.isnan(ys))
        width = len(self.edges) - 1
        cells = bins(self.edges, xs[known]) * width + bins(self.edges, ys[known])
        self.counts += np.bincount(cells, minlength=width * width).reshape(width, width)

    def result(self) -> JointHistogram | None:
        """None when nothing was counted."""
        if not self.counts.any():
            return None
        counts, x_edges = _readable(self.counts, self.edges)
        counts, y_edges = _readable(counts.T, self.edges)
        return JointHistogram(
            x_edges=tuple(x_edges.tolist()),
            y_edges=tuple(y_edges.tolist()),
            counts=tuple(map(tuple, counts.T.tolist())),
        )


def _readable(counts: Counts, edges: Floats) -> tuple[Counts, Floats]:
    """Without empty rows at the ends; where many are left, some of them together."""
    first, last = _span(counts.sum(axis=1))
    counts, edges = counts[first : last + 1], edges[first : last + 2]
    starts = np.arange(0, len(counts), -(-len(counts) // _MOST_JOINT_BINS))
    return np.add.reduceat(counts, starts, axis=0), np.append(edges[starts], edges[-1])


def bins(edges: Floats, values: npt.NDArray[np.floating]) -> npt.NDArray[np.intp]:
    """The bin of each value, the first and last one taking what lies outside."""
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)


def _span(counts: Counts) -> tuple[int, int]:
    filled = np.flatnonzero(counts)
    return int(filled[0]), int(filled[-1])


def time_series(times: Floats) -> TimeSeries:
    """Arrivals over time in steps of a round length, at most 240 of them.

    Args:
        times: sorted, from 0 on, at least one.
    """
    span = float(times[-1])
    step = next((s for s in _TIME_BINS_S if span / s < _MOST_TIME_BINS), span / (_MOST_TIME_BINS - 1))
    counts = np.bincount((times / step).astype(np.int64))
    return TimeSeries(step_s=float(step), counts=tuple(counts.tolist()))


def histogram(values: npt.NDArray[np.number], edges: Floats) -> Histogram | None:
    """The histogram of values that are all here."""
    counter = BinCounter(edges)
    counter.feed(np.asarray(values, np.float64))
    return counter.result()
