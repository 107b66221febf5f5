"""The Pareto front over quality (more), latency and cost (less), and how much it dominates.

Does not know objectives or SLOs; a front is kept whatever the user asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from optimizer.errors import OptimizerError
from optimizer.measure import Measure, measure_named
from optimizer.results import TrialResult, TrialState

Floats = npt.NDArray[np.float64]

AXES: tuple[Measure, ...] = (measure_named("quality"), measure_named("e2el", "p95"), measure_named("cost"))


class Interval(NamedTuple):
    """One axis of a trial, turned so that less is better."""

    low: float
    value: float
    high: float


def intervals(trial: TrialResult) -> tuple[Interval, ...] | None:
    """Loss on every axis (1 - quality, seconds, dollars); None unless the trial is measured on all of them.

    Where quality cannot be evaluated (a workload of lengths alone) no trial has a score, and all lose nothing.
    """
    if trial.state is not TrialState.COMPLETE or trial.reason:
        return None
    try:
        return tuple(_interval(axis, trial) for axis in AXES)
    except OptimizerError:
        return None


def _interval(axis: Measure, trial: TrialResult) -> Interval:
    if axis.source == "quality" and trial.quality is None:
        return Interval(0.0, 0.0, 0.0)
    found = axis.read_trial(trial)
    if axis.higher_is_better:
        return Interval(1 - found.high, 1 - found.value, 1 - found.low)
    return Interval(found.low, found.value, found.high)


def losses(trial: TrialResult) -> tuple[float, ...] | None:
    """The values of `intervals`."""
    found = intervals(trial)
    return tuple(interval.value for interval in found) if found else None


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """`a` is no worse anywhere and better somewhere; less is better."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def dominated_beyond_doubt(trial: TrialResult, by: TrialResult) -> bool:
    """On every axis `by`'s worst end is no worse than the trial's best, or the two are one estimate (as in one
    quality class); and on some axis it is better."""
    mine, theirs = intervals(trial), intervals(by)
    if mine is None or theirs is None:
        return False
    pairs = list(zip(theirs, mine, strict=True))
    return all(t.high <= m.low or t == m for t, m in pairs) and any(t.high < m.low for t, m in pairs)


def non_dominated(points: Floats) -> npt.NDArray[np.bool_]:
    """Which rows of (n, axes) nothing dominates; equal rows stay together."""
    no_worse = (points[:, None, :] <= points[None, :, :]).all(axis=2)
    better = (points[:, None, :] < points[None, :, :]).any(axis=2)
    return np.asarray(~(no_worse & better).any(axis=0))


def pareto_front(trials: Sequence[TrialResult]) -> tuple[int, ...]:
    """Numbers of the measured trials nothing dominates, ascending; ties are all kept."""
    measured = [(trial.number, point) for trial in trials if (point := losses(trial)) is not None]
    if not measured:
        return ()
    kept = non_dominated(np.array([point for _, point in measured]))
    return tuple(sorted(number for (number, _), keep in zip(measured, kept, strict=True) if keep))


def hypervolume(points: Floats, reference: Floats) -> float:
    """Volume between the reference and what (n, 3) points dominate; exact, less is better, O(n²)."""
    points = points[(points < reference).all(axis=1)]
    if not len(points):
        return 0.0
    grid = StairGrid.of(points, reference)
    widths, heights = np.diff(grid.x), np.diff(grid.y)
    depths = reference[2] - grid.z[grid.lowest][1:, 1:]
    return float(widths @ depths @ heights)


class StairGrid(NamedTuple):
    """The cells in which points divide the box below a reference; cell (i, j) starts at (x[i-1], y[j-1]).

    Row and column 0 are the open cells below every point. `z[lowest[i, j]]`: what the cell's points begin to dominate.
    """

    x: Floats  # (columns + 1,) edges, the last is the reference
    y: Floats
    z: Floats  # the points' depths, and the reference's last
    lowest: npt.NDArray[np.int64]  # (len(x), len(y)) indices into z

    @classmethod
    def of(cls, points: Floats, reference: Floats) -> StairGrid:
        """Of (n, 3) points strictly inside the reference."""
        x, y = np.unique(points[:, 0]), np.unique(points[:, 1])
        z = np.append(np.unique(points[:, 2]), reference[2])
        lowest = np.full((len(x) + 1, len(y) + 1), len(z) - 1, np.int64)
        cells = (np.searchsorted(x, points[:, 0]) + 1, np.searchsorted(y, points[:, 1]) + 1)
        np.minimum.at(lowest, cells, np.searchsorted(z, points[:, 2]))
        lowest = np.minimum.accumulate(np.minimum.accumulate(lowest, axis=0), axis=1)
        return cls(np.append(x, reference[0]), np.append(y, reference[1]), z, lowest)
