"""Statistics of records that can be computed for a thousand weighted resamples at once.

Does not know how resamples are drawn (`estimate.py`). Each equals the same-named number of `ServingMetrics`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from workloads.errors import UndefinedMetricError
from workloads.metrics import span_s
from workloads.record_arrays import LATENCY_METRICS, Floats, Ints, LatencyMetric, RecordArrays
from workloads.slo import Slos, meets_slos

RateName = Literal["request_throughput", "output_throughput", "total_token_throughput", "request_goodput"]
ShareName = Literal["slo_attainment", "error_rate"]

_MAX_CELLS = 8_000_000  # of one weight matrix: bounds memory at about 64 MiB


class Statistic(ABC):
    """A number of a run, also when each request counts a whole number of times."""

    @abstractmethod
    def resampled(self, arrays: RecordArrays, counts: Ints) -> Floats:
        """The statistic for each row of counts.

        Args:
            counts: (num_resamples, num_requests), how often each request occurs in each resample.

        Returns:
            (num_resamples,), NaN where a resample does not define it.

        Raises:
            UndefinedMetricError: the records define it in no resample.
        """


@dataclass(frozen=True, kw_only=True)
class LatencyPercentile(Statistic):
    """A percentile of a latency, linear between order statistics as numpy's."""

    metric: LatencyMetric
    percentile: float
    unit_s: float = 1.0  # 0.001 gives milliseconds

    def resampled(self, arrays: RecordArrays, counts: Ints) -> Floats:
        values, owners = _defined(arrays, self.metric)
        order = np.argsort(values, kind="stable")
        values, owners = values[order], owners[order]
        step = max(1, _MAX_CELLS // len(values))
        parts = (self._of_sorted(values, counts[i : i + step, owners]) for i in range(0, len(counts), step))
        return np.concatenate(list(parts)) / self.unit_s

    def _of_sorted(self, values: Floats, counts: Ints) -> Floats:
        ranks = np.cumsum(counts, axis=1)
        totals = ranks[:, -1]
        position = (totals - 1) * (self.percentile / 100)
        low = np.floor(position)
        below = _at_rank(values, ranks, low)
        above = _at_rank(values, ranks, np.minimum(low + 1, totals - 1))
        return np.where(totals > 0, below + (above - below) * (position - low), np.nan)


def _at_rank(values: Floats, ranks: Ints, rank: Floats) -> Floats:
    """The value whose copies cover `rank` (0-based) in the expanded sample."""
    covering: Ints = np.argmax(ranks > rank[:, None], axis=1)
    return np.asarray(values[covering], np.float64)


@dataclass(frozen=True, kw_only=True)
class LatencyMean(Statistic):
    """Mean of a latency."""

    metric: LatencyMetric
    unit_s: float = 1.0  # 0.001 gives milliseconds

    def resampled(self, arrays: RecordArrays, counts: Ints) -> Floats:
        values, owners = _defined(arrays, self.metric)
        sums = np.bincount(owners, values, len(arrays))
        sizes = np.bincount(owners, minlength=len(arrays))
        return _divide(_weighted(counts, sums), _weighted(counts, sizes)) / self.unit_s


@dataclass(frozen=True, kw_only=True)
class Rate(Statistic):
    """Something per second: requests, tokens or good requests; a resample lasts as long as its requests' shares.

    A request's share of the run is the time until the next arrival (the last one's: until the run ends).
    """

    what: RateName
    slos: Slos | None = None

    def resampled(self, arrays: RecordArrays, counts: Ints) -> Floats:
        if span_s(arrays) <= 0:
            raise UndefinedMetricError(f"{self.what} is undefined: no duration", fix="Measure more requests")
        return _divide(_weighted(counts, self._amounts(arrays)), _weighted(counts, _shares(arrays)))

    def _amounts(self, arrays: RecordArrays) -> Floats:
        if self.what == "request_goodput":
            return _good(arrays, self.slos).astype(np.float64)
        tokens = {
            "request_throughput": np.ones(len(arrays)),
            "output_throughput": arrays.output_tokens,
            "total_token_throughput": arrays.input_tokens + arrays.output_tokens,
        }[self.what]
        return np.where(arrays.completed, tokens, 0).astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class Share(Statistic):
    """A share of the requests that ended: those that met every SLO, or those that failed."""

    what: ShareName
    slos: Slos | None = None

    def resampled(self, arrays: RecordArrays, counts: Ints) -> Floats:
        ended = arrays.counted
        if not ended.any():
            raise UndefinedMetricError(f"{self.what} is undefined: no request ended", fix="Measure more requests")
        hits = _good(arrays, self.slos) if self.what == "slo_attainment" else ended & ~arrays.completed
        return _divide(_weighted(counts, hits), _weighted(counts, ended))


_LATENCY = re.compile(r"(mean|median|p(\d+(?:\.\d+)?))_(ttft|tpot|itl|e2el|schedule_lag)_ms")


def statistic_named(name: str, slos: Slos | None = None) -> Statistic:
    """The statistic behind a flat metric name, in the name's unit.

    Raises:
        UndefinedMetricError: no statistic of that name can be resampled.
    """
    match = _LATENCY.fullmatch(name)
    if match:
        metric = next(m for m in LATENCY_METRICS if m == match[3])
        if match[1] == "mean":
            return LatencyMean(metric=metric, unit_s=0.001)
        return LatencyPercentile(metric=metric, percentile=float(match[2] or 50), unit_s=0.001)
    for rate in get_args(RateName):
        if rate == name:
            return Rate(what=rate, slos=slos)
    for share in get_args(ShareName):
        if share == name:
            return Share(what=share, slos=slos)
    raise UndefinedMetricError(f"no interval for metric {name!r}", fix="Use names like p95_ttft_ms or request_goodput")


def _defined(arrays: RecordArrays, metric: LatencyMetric) -> tuple[Floats, Ints]:
    values, owners = arrays.samples(metric)
    if not len(values):
        raise UndefinedMetricError(f"{metric} is undefined: no completed request defines it", fix="Look at the records")
    return values, owners


def _good(arrays: RecordArrays, slos: Slos | None) -> Ints:
    if slos is None:
        raise UndefinedMetricError("goodput is undefined: no SLOs were given", fix="Give SLOs")
    return np.asarray(meets_slos(arrays, slos) & arrays.counted, np.int64)


def _shares(arrays: RecordArrays) -> Floats:
    """Seconds of the run each request stands for; they add up to `span_s`."""
    shares = np.zeros(len(arrays))
    rows = np.flatnonzero(arrays.counted)
    rows = rows[np.argsort(arrays.intended_start_s[rows], kind="stable")]
    end = arrays.end_s[rows].max(initial=-np.inf)
    shares[rows] = np.diff(np.append(arrays.intended_start_s[rows], end))
    return shares


def _divide(above: Floats, below: Floats) -> Floats:
    """Element by element; NaN where `below` is 0."""
    quotient = np.full(len(above), np.nan)
    np.divide(above, below, out=quotient, where=below > 0)
    return quotient


def _weighted(counts: Ints, amounts: npt.ArrayLike) -> Floats:
    """Σ count · amount for each resample."""
    return np.asarray(counts @ np.asarray(amounts, np.float64), np.float64)
