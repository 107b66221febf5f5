"""`TrafficStatistics`: what a sample of traffic should keep, and how far it is from the whole.

Does not know how the sample is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from workloads.characterize import DISPERSION_WINDOWS_S, correlation, dispersion, interarrival_cv, spread

Floats = npt.NDArray[np.float64]
Lengths = npt.NDArray[np.floating]

_QUANTILES = (50, 90, 99)
_RATE = "requests/s"
_HITS = "ideal prefix-hit ratio"
_MAY_BE_OFF = 0.1  # of the logarithm of burstiness and lengths
_MAY_BE_OFF_RATE = 0.03
_MAY_BE_OFF_HITS = 0.005  # two points are the promise
_MAY_BE_OFF_CORRELATION = 0.05
_BLOCK_ROWS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class TrafficStatistics:
    """Rate, burstiness, lengths and prefix sharing; None where they are not defined.

    `dispersion` is variance / mean of the requests per window, by its seconds; `length_correlation` is Pearson's of the
    logarithms of input and output tokens.
    """

    rate_rps: float | None = None
    interarrival_cv: float | None = None
    dispersion: Mapping[str, float] = field(default_factory=dict)
    input_tokens: tuple[float, ...] = ()  # mean, p50, p90, p99
    output_tokens: tuple[float, ...] = ()
    length_correlation: float | None = None
    prefix_hit_ratio: float | None = None

    def scaled(self, scale: float) -> TrafficStatistics:
        """As it would be at `scale` times the load: thinning makes counts more Poisson, superposition does not.

        Thinned with probability p, a count of index of dispersion D has 1 + p (D − 1).
        """
        kept = min(scale, 1.0)
        return TrafficStatistics(
            rate_rps=None if self.rate_rps is None else self.rate_rps * scale,
            interarrival_cv=self.interarrival_cv if scale == 1.0 else None,
            dispersion={window: 1 + kept * (value - 1) for window, value in self.dispersion.items()},
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            length_correlation=self.length_correlation,
            prefix_hit_ratio=self.prefix_hit_ratio,
        )


def traffic_statistics(
    times: Floats | None,
    span_s: float,
    input_tokens: Lengths,
    output_tokens: Lengths,
    *,
    step_s: float | None = None,
    prefix_hit_ratio: float | None = None,
) -> TrafficStatistics:
    """Measure requests.

    Args:
        times: arrivals in [0, span_s] that are counted, in any order; None: not recorded.
        step_s: spread arrivals within steps so long before burstiness is measured.
    """
    if times is None or len(times) < 2 or span_s <= 0:
        burstiness: dict[str, float] = {}
        rate = cv = None
    else:
        ordered = _sorted(times) if step_s is None else spread(times, step_s)
        rate, cv = len(times) / span_s, interarrival_cv(ordered)
        burstiness = dispersion(ordered)
    return TrafficStatistics(
        rate_rps=rate,
        interarrival_cv=cv,
        dispersion=burstiness,
        input_tokens=_lengths(input_tokens),
        output_tokens=_lengths(output_tokens),
        length_correlation=_correlation(input_tokens, output_tokens),
        prefix_hit_ratio=prefix_hit_ratio,
    )


def _lengths(tokens: Lengths) -> tuple[float, ...]:
    known = tokens[~np.isnan(tokens)]
    if not len(known):
        return ()
    ranks = [min(len(known) - 1, max(0, int(np.ceil(q / 100 * len(known))) - 1)) for q in _QUANTILES]
    ordered = np.partition(known, ranks)
    return (float(known.mean(dtype=np.float64)), *(float(ordered[rank]) for rank in ranks))


def _sorted(times: Floats) -> Floats:
    return np.sort(times) if (times[1:] < times[:-1]).any() else times


def _correlation(inputs: Lengths, outputs: Lengths) -> float | None:
    """Pearson's of log(1 + tokens), from sums over blocks of requests."""
    sums = np.zeros(6)  # n, Σx, Σy, Σxx, Σyy, Σxy
    for first in range(0, len(inputs), _BLOCK_ROWS):
        x, y = (np.log1p(tokens[first : first + _BLOCK_ROWS].astype(np.float64)) for tokens in (inputs, outputs))
        both = ~(np.isnan(x) | np.isnan(y))
        x, y = x[both], y[both]
        sums += np.array([float(len(x)), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()])
    return correlation(sums)


class Difference(NamedTuple):
    """One statistic of the whole and of the sample; `is_share`: compared in points, not as a ratio."""

    what: str
    whole: float
    sample: float
    is_share: bool = False

    @property
    def told(self) -> str:
        """The difference in words."""
        if self.is_share:
            return f"{100 * (self.sample - self.whole):+.1f} points"
        return f"{100 * (self.sample / self.whole - 1):+.1f}%" if self.whole else "-"


def differences(whole: TrafficStatistics, sample: TrafficStatistics) -> list[Difference]:
    """What both define, in the order it is told."""
    found = [
        _pair(_RATE, whole.rate_rps, sample.rate_rps),
        _pair("inter-arrival CV", whole.interarrival_cv, sample.interarrival_cv),
    ]
    for window in map(str, DISPERSION_WINDOWS_S):
        pair = (whole.dispersion.get(window), sample.dispersion.get(window))
        found.append(_pair(f"dispersion of counts at {window} s", *pair))
    for what, name in (("input tokens", "input_tokens"), ("output tokens", "output_tokens")):
        labels = ("mean", *(f"p{q}" for q in _QUANTILES))
        pairs = zip(labels, getattr(whole, name), getattr(sample, name), strict=False)
        found += [_pair(f"{what}, {label}", *pair) for label, *pair in pairs]
    lengths = (whole.length_correlation, sample.length_correlation)
    found.append(_pair("correlation of log lengths", *lengths, is_share=True))
    hits = (whole.prefix_hit_ratio, sample.prefix_hit_ratio)
    found.append(_pair(_HITS, *hits, is_share=True))
    return [pair for pair in found if pair is not None]


def _pair(what: str, whole: float | None, sample: float | None, *, is_share: bool = False) -> Difference | None:
    return None if whole is None or sample is None else Difference(what, whole, sample, is_share)


def distance(whole: TrafficStatistics, sample: TrafficStatistics) -> float:
    """Sum of squares of what is off, each in units of what may be off; a statistic that the sample lacks costs 4."""
    found = differences(whole, sample)
    total = 4.0 * (len(differences(whole, whole)) - len(found))
    for pair in found:
        if pair.is_share:
            off = (pair.sample - pair.whole) / (_MAY_BE_OFF_HITS if pair.what == _HITS else _MAY_BE_OFF_CORRELATION)
        elif pair.whole > 0:
            may = _MAY_BE_OFF_RATE if pair.what == _RATE else _MAY_BE_OFF
            off = float(np.log(max(pair.sample, 1e-3) / pair.whole)) / may
        else:
            continue
        total += off * off
    return total


def relative_error(num_windows: int) -> float:
    """Standard error of an index of dispersion from so many windows, relative: √(2 / (n − 1)), of normal counts."""
    return float(np.sqrt(2 / (num_windows - 1)))
