"""Chooses windows of traffic that together are like the whole: from every regime of load and lengths its share.

Does not know how windows are laid out or written. The windows are the best of many seeded draws, chosen for their
likeness: they are not a random sample, and what they measure has no sampling error that could be told from them.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from workloads.traffic import Floats, Ints, Lengths, Traffic
from workloads.traffic_statistics import TrafficStatistics, distance, traffic_statistics

NUM_PLACES = 256  # windows looked at
NUM_DRAWS = 200  # sets of windows that are compared with the whole
NUM_SWAPS = 300  # of one window of the best set for another
_PLACES_A_LENGTH = 16
_MAX_ROWS_DRAWN = 20_000_000  # of all draws together: bounds time


class Window(NamedTuple):
    """[start, start + length) on the traffic's clock."""

    start: float
    length: float


class WindowedTraffic:
    """Traffic in order of its sessions' starts, so that a window's whole sessions are found at once."""

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        begun = traffic.clock if traffic.all_alone else traffic.session_starts[traffic.sessions]
        self._order: Ints | None = None  # None: as they are
        if (begun[1:] < begun[:-1]).any():
            self._order = np.argsort(begun, kind="stable")
            begun = begun[self._order]
        self._begun = begun

    def rows(self, window: Window) -> Ints:
        """Requests of the sessions that start in the window."""
        low, high = np.searchsorted(self._begun, (window.start, window.start + window.length))
        return np.arange(low, high) if self._order is None else self._order[low:high]

    def num_arrivals(self, window: Window) -> int:
        """Requests in the window, whenever their sessions began."""
        clock = self.traffic.clock  # workloads are in order of arrival, those without at the end
        low, high = np.searchsorted(clock, (window.start, window.start + window.length))
        return int(high - low)

    @cached_property
    def whole(self) -> TrafficStatistics:
        """Of all the requests."""
        traffic = self.traffic
        hits = None if traffic.prefix is None else traffic.prefix.ideal_hit_ratio
        times = traffic.clock[np.isfinite(traffic.clock)] - float(self._begun[0]) if traffic.timed else None
        return self._statistics(times, traffic.span, slice(None), hits)

    def laid_out(self, windows: list[Window]) -> TrafficStatistics:
        """Of windows of one length, one laid after another; what families have after the end goes to the start."""
        parts = [self.rows(window) for window in windows]
        moves = [
            np.full(len(rows), i * w.length - w.start) for i, (rows, w) in enumerate(zip(parts, windows, strict=True))
        ]
        rows = np.concatenate(parts)
        span = len(windows) * windows[0].length
        times = None
        if self.traffic.timed:
            times = self.traffic.clock[rows] + np.concatenate(moves)
            times = times % span if self.traffic.families else times[times < span]
        blocks = self.traffic.blocks
        return self._statistics(times, span, rows, None if blocks is None or not len(rows) else blocks.hit_ratio(rows))

    def _statistics(
        self, times: Floats | None, span: float, rows: Ints | slice, hits: float | None
    ) -> TrafficStatistics:
        traffic = self.traffic
        return traffic_statistics(
            times,
            span,
            traffic.input_tokens[rows],
            traffic.output_tokens[rows],
            step_s=traffic.step_s,
            prefix_hit_ratio=hits,
        )


def choose_windows(
    traffic: WindowedTraffic, *, length: float, num_windows: int, seed: int, taken: list[Window]
) -> list[Window]:
    """Windows that do not overlap, in the order of the recording, most like the whole together.

    Args:
        length: of each window, on the traffic's clock.
        taken: windows to keep off while there is room elsewhere.
    """
    places = _places(traffic.traffic, length)
    regimes = _regimes(traffic, places, num_windows, seed)
    shares = _allocated(regimes, num_windows)
    rng = np.random.default_rng(seed)
    share = _share_looked_at(traffic.traffic, length * num_windows)
    best, least = None, np.inf
    for _ in range(max(8, int(share * NUM_DRAWS))):
        drawn = _drawn(places, regimes, shares, rng, taken) or _drawn(places, regimes, shares, rng, [])
        if drawn and (far := distance(traffic.whole, traffic.laid_out(drawn))) < least:
            best, least = drawn, far
    if best is None:  # no room for places at random
        return _evenly(traffic.traffic, length, num_windows)
    return _swapped(traffic, places, best, least, rng, taken, max(8, int(share * NUM_SWAPS)))


def _evenly(traffic: Traffic, length: float, num_windows: int) -> list[Window]:
    """Windows from the first start to the last one that has room, at equal distances."""
    first, room = float(traffic.session_starts.min()), max(0.0, traffic.span - length)
    step = traffic.step_s or (0.0 if traffic.timed else 1.0)
    starts = np.linspace(0.0, room, num_windows)
    starts = np.floor(starts / step) * step if step else starts
    return [Window(first + float(start), length) for start in starts]


def _share_looked_at(traffic: Traffic, length: float) -> float:
    """Of all draws and swaps, so that they look at a bounded number of rows."""
    num_rows = len(traffic) * min(1.0, length / max(traffic.span, 1e-9))
    return min(1.0, _MAX_ROWS_DRAWN / max(1.0, num_rows) / (NUM_DRAWS + NUM_SWAPS))


def _swapped(
    traffic: WindowedTraffic,
    places: list[Window],
    chosen: list[Window],
    least: float,
    rng: np.random.Generator,
    taken: list[Window],
    num_swaps: int,
) -> list[Window]:
    """The set after swaps of one window for another place, each kept when the set is more like the whole with it.

    A draw has windows like the regimes they stand for, but drift from window to window, which makes most of the
    burstiness at a minute and more, is found by looking at the set.
    """
    for _ in range(num_swaps):
        gone = int(rng.integers(len(chosen)))
        others = [window for i, window in enumerate(chosen) if i != gone]
        candidates = np.flatnonzero(_free(places, [*others, *taken]))
        if not len(candidates):
            continue
        tried = sorted([*others, places[int(rng.choice(candidates))]])
        if (far := distance(traffic.whole, traffic.laid_out(tried))) < least:
            chosen, least = tried, far
    return chosen


def _free(places: list[Window], taken: list[Window]) -> npt.NDArray[np.bool_]:
    """Which places overlap with none of the windows."""
    starts, length = np.array([place.start for place in places]), places[0].length
    free = np.ones(len(places), bool)
    for other in taken:
        free &= (starts >= other.start + other.length) | (starts + length <= other.start)
    return free


def _places(traffic: Traffic, length: float) -> list[Window]:
    """Windows everywhere, sixteen to a length where there is room; starts are whole steps of the stamps.

    Off the end, where the recording cuts sessions short, as far as nine in ten requests come after their session began.
    """
    first, room = float(traffic.session_starts.min()), traffic.span - length
    if room <= 0:
        return [Window(first, length)]
    room = max(room - _latest_turns(traffic), room / 2)
    num = min(NUM_PLACES, max(2, int(_PLACES_A_LENGTH * traffic.span / length)))
    step = traffic.step_s or (0.0 if traffic.timed else 1.0)
    starts = np.linspace(0.0, room, num)
    starts = np.unique(np.floor(starts / step) * step) if step else starts
    return [Window(first + float(start), length) for start in starts]


def _latest_turns(traffic: Traffic) -> float:
    """How long after their session's beginning nine in ten requests have come."""
    if traffic.all_alone:
        return 0.0
    after = traffic.clock - traffic.session_starts[traffic.sessions]
    return float(np.nanquantile(after, 0.9))


def _regimes(traffic: WindowedTraffic, places: list[Window], num_windows: int, seed: int) -> Ints:
    """Regime of each place: k-means over standardized logs of load, lengths and burstiness."""
    features = np.array([_features(traffic, place) for place in places])
    lengths = features[:, 1:3]
    features[:, 1:3] = np.where(np.isnan(lengths), np.nanmean(lengths, axis=0) if len(places) else 0, lengths)
    features = np.nan_to_num(features)
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0)
    num_regimes = min(num_windows, len(np.unique(scaled, axis=0)))
    if num_regimes < 2:
        return np.zeros(len(places), np.int64)
    from sklearn.cluster import KMeans  # a second to import, for this alone

    return np.asarray(KMeans(num_regimes, n_init=4, random_state=seed).fit_predict(scaled), np.int64)


def _features(traffic: WindowedTraffic, place: Window) -> tuple[float, ...]:
    rows = traffic.rows(place)
    found = traffic.traffic
    means = [_log_mean(tokens[rows]) for tokens in (found.input_tokens, found.output_tokens)]
    bursts = 0.0
    if found.timed and len(rows) > 1:
        counts = np.bincount(
            ((found.session_starts[found.sessions[rows]] - place.start) * 16 // place.length).astype(int)
        )
        bursts = float(np.log(0.1 + counts.var() / counts.mean()))
    return (float(np.log(0.5 + traffic.num_arrivals(place))), *means, bursts)


def _log_mean(tokens: Lengths) -> float:
    known = tokens[~np.isnan(tokens)]
    return float(np.log1p(known.mean(dtype=np.float64))) if len(known) else np.nan


def _allocated(regimes: Ints, num_windows: int) -> npt.NDArray[np.int64]:
    """Windows of each regime in proportion to its places, by largest remainders."""
    quota = np.bincount(regimes) / len(regimes) * num_windows
    shares = np.floor(quota).astype(np.int64)
    left = num_windows - int(shares.sum())
    shares[np.argsort(shares - quota, kind="stable")[:left]] += 1
    return shares


def _drawn(
    places: list[Window], regimes: Ints, shares: Ints, rng: np.random.Generator, taken: list[Window]
) -> list[Window] | None:
    """A regime's windows at random places; None where they would overlap whatever is tried."""
    free = _free(places, taken)
    chosen: list[Window] = []
    for regime in rng.permutation(len(shares)):
        for _ in range(shares[regime]):
            candidates = np.flatnonzero(free & (regimes == regime))
            candidates = candidates if len(candidates) else np.flatnonzero(free)
            if not len(candidates):
                return None
            place = places[int(rng.choice(candidates))]
            chosen.append(place)
            free &= _free(places, [place])
    return sorted(chosen)
