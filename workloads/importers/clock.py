"""What a trace's times say of themselves: whether they go backwards, and whether two units were mixed.

Does not know formats: it is given the arrivals as the importer read them, in the order of the file.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from workloads.errors import WorkloadError, row_place
from workloads.importers.repairs import NO_REPAIRS, Repairs

Floats = npt.NDArray[np.float64]

_RATIO = (300.0, 3000.0)  # about the thousand between seconds and milliseconds
_LOOKED_AT = 10_000  # times of a clock that goes back
_DATE_S = 1e9  # numbers as large as this are times since 1970


def clock_notes(arrivals: Floats, where: str) -> list[str]:
    """What is odd about the clock, in words; rows are put in order of time by whoever writes the workload.

    Args:
        arrivals: seconds, NaN where not recorded.

    Raises:
        WorkloadError: seconds and milliseconds in one column, beyond doubt.
    """
    is_known = np.isfinite(arrivals)
    times = arrivals if is_known.all() else arrivals[is_known]
    if len(times) < 2:
        return []
    if (row := _mixed_in_order(times)) is not None or (row := _mixed_dates(times)) is not None:
        place = row_place(where, int(np.flatnonzero(is_known)[row]), "arrival_s")
        NO_REPAIRS.take("times_in_ms", _mixed(times[row - 1], times[row], place))
    notes = []
    steps = np.diff(times)
    if num_back := int((steps < 0).sum()):
        worst = float(-steps.min())
        notes.append(f"the clock goes back {num_back} times, at most {worst:.6g} s: rows were put in order of time")
    elif (row := _jump(times)) is not None:
        jump = f"from {times[row - 1]:.6g} to {times[row]:.6g} s at row {np.flatnonzero(is_known)[row]}"
        notes.append(f"the clock jumps {jump}, most of the recording: were seconds and milliseconds mixed?")
    return notes


def in_one_unit(arrivals: Floats, where: str, repairs: Repairs) -> Floats:
    """The arrivals with those in milliseconds brought to seconds, where `clock_notes` is sure that two units are mixed.

    Raises:
        WorkloadError: mixed, and still not in order when brought to one unit.
    """
    rows = np.flatnonzero(np.isfinite(arrivals))
    times = arrivals[rows]
    if len(times) < 2:
        return arrivals
    if (row := _mixed_in_order(times)) is not None:
        error = _mixed(times[row - 1], times[row], row_place(where, int(rows[row]), "arrival_s"))
        if (is_milli := _in_milli(times)) is None:
            raise error
    elif (row := _mixed_dates(times)) is not None:
        error = _mixed(times[row - 1], times[row], row_place(where, int(rows[row]), "arrival_s"))
        is_milli = times >= times.max() / _RATIO[0]
    else:
        return arrivals
    repairs.take("times_in_ms", error, num=int(is_milli.sum()))
    changed = arrivals.copy()
    changed[rows[is_milli]] /= 1000
    return changed


def _mixed(before: float, after: float, place: str) -> WorkloadError:
    what = f"times of two units are mixed: {before:g} and {after:g} follow each other"
    return WorkloadError(what, place=place, fix="Bring all times to one unit")


def _in_milli(times: Floats) -> npt.NDArray[np.bool_] | None:
    """Which times are milliseconds; None where the clock then still goes back."""
    found = np.zeros(len(times), dtype=bool)
    now = float(times[0])
    for row, time in enumerate(times[1:].tolist(), start=1):
        found[row] = now >= 1 and _RATIO[0] * now <= time <= _RATIO[1] * now and time / 1000 > now
        if (time := time / 1000 if found[row] else time) < now:
            return None
        now = time
    return found


def _mixed_in_order(times: Floats) -> int | None:
    """The first row in milliseconds, where the times fall, and would not if those about a thousandfold were divided."""
    if not (times[1:] < times[:-1]).any():
        return None
    found = _in_milli(times[:_LOOKED_AT])
    return int(np.argmax(found)) if found is not None and found.any() else None


def _mixed_dates(times: Floats) -> int | None:
    """The first row of the other unit among times since 1970, whose size tells their unit."""
    if times.max() < _DATE_S:
        return None
    is_small = times < times.max() / _RATIO[0]
    small = times[is_small]
    if not len(small) or small.min() < times.max() / _RATIO[1]:
        return None  # none, or a stray zero rather than another unit
    return max(1, int(np.argmax(is_small != is_small[0])))


def _jump(times: Floats) -> int | None:
    """The row after one gap that is nearly the whole recording and a thousandfold growth."""
    steps = np.diff(times)
    place = int(np.argmax(steps))
    low, high = float(times[place]), float(times[place + 1])
    ratio = high / low if low > 10 else 0.0
    return place + 1 if _RATIO[0] <= ratio <= _RATIO[1] and steps[place] >= 0.5 * np.ptp(times) and place > 0 else None
