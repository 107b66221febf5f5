"""Serving metrics as pure functions of request records; one definition per number.

Does not know engines, objectives, or how sure a number is (`estimate.py`).

Clocks start at the *intended* start of a request, so time spent queueing in the client counts; `vllm bench serve`,
whose names we use, starts its clocks when it sends, and takes one gap a chunk for ITL where we take one a token.
`summarize(records, clock="sent")` is the send-time view, for comparison with such tools and for nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from workloads.errors import UndefinedMetricError
from workloads.record_arrays import LATENCY_METRICS, Floats, LatencyMetric, Mask, RecordArrays, as_arrays
from workloads.records import RequestRecord
from workloads.slo import Slos, meets_slos

Clock = Literal["intended", "sent"]
FLAT_PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0)
_LATENCY_NAME = re.compile(r"(mean|median|std|p(\d+(?:\.\d+)?))_(ttft|tpot|itl|e2el|schedule_lag)_ms")
_COUNTS = ("completed", "failed", "num_cut", "total_input_tokens", "total_output_tokens", "max_concurrent_requests")
_RATES = ("request_throughput", "output_throughput", "total_token_throughput")


def min_requests(percentile: float) -> int:
    """How many requests a percentile needs to be reported unasked: 5 / (1 − p) from p99 on, e.g. 500 for p99."""
    return round(5 / (1 - percentile / 100)) if 99 <= percentile < 100 else 1


@dataclass(frozen=True, kw_only=True)
class ServingMetrics:
    """What a replay measured; every number is asked for by name and raises when the records do not define it."""

    arrays: RecordArrays
    duration_s: float
    good: Mask | None = None  # requests that met every SLO; None when no SLOs were given
    clock: Clock = "intended"  # where TTFT and E2EL start

    @property
    def completed(self) -> int:
        """Requests with status ok and at least one output token."""
        return int(self.arrays.completed.sum())

    @property
    def failed(self) -> int:
        """Requests that ended in an error, a timeout or without a token; cut and cancelled ones are neither."""
        return int((self.arrays.counted & ~self.arrays.completed).sum())

    @property
    def num_cut(self) -> int:
        """Requests cut by the replay's end or cancelled: in neither `completed` nor `failed`."""
        return int((~self.arrays.counted).sum())

    @property
    def error_rate(self) -> float:
        """failed / (completed + failed)."""
        if self.completed + self.failed == 0:
            raise _undefined("error_rate", "no request ended")
        return self.failed / (self.completed + self.failed)

    @property
    def total_input_tokens(self) -> int:
        """Σ input tokens over completed requests."""
        return int(self.arrays.input_tokens[self.arrays.completed].sum())

    @property
    def total_output_tokens(self) -> int:
        """Σ output tokens over completed requests."""
        return int(self.arrays.output_tokens[self.arrays.completed].sum())

    @property
    def request_throughput(self) -> float:
        """completed / duration, requests/s."""
        return self.completed / self._duration("request_throughput")

    @property
    def output_throughput(self) -> float:
        """total_output_tokens / duration, tokens/s."""
        return self.total_output_tokens / self._duration("output_throughput")

    @property
    def total_token_throughput(self) -> float:
        """(total_input_tokens + total_output_tokens) / duration, tokens/s."""
        return (self.total_input_tokens + self.total_output_tokens) / self._duration("total_token_throughput")

    @property
    def request_goodput(self) -> float:
        """Requests meeting every SLO / duration, requests/s; failed requests meet none, cut ones are not counted."""
        return int(self._good("request_goodput").sum()) / self._duration("request_goodput")

    @property
    def slo_attainment(self) -> float:
        """Requests meeting every SLO / (completed + failed)."""
        good = self._good("slo_attainment")
        if self.completed + self.failed == 0:
            raise _undefined("slo_attainment", "no request ended")
        return int(good.sum()) / (self.completed + self.failed)

    @property
    def max_concurrent_requests(self) -> int:
        """Most requests in flight (sent and not ended) at one moment, cut ones included."""
        moments = np.concatenate([self.arrays.sent_s, self.arrays.end_s])
        change = np.repeat([1, -1], len(self.arrays))
        order = np.lexsort((change, moments))  # at one moment ends come before starts
        return int(np.cumsum(change[order]).max(initial=0))

    def values(self, metric: LatencyMetric) -> Floats:
        """Every defined value of a latency, in seconds (see `RecordArrays` for the formulas).

        Raises:
            UndefinedMetricError: there is none.
        """
        values = self.arrays.samples(metric).values
        if not len(values):
            raise _undefined(metric, "no completed request defines it")
        return values

    def percentile(self, metric: LatencyMetric, percentile: float) -> float:
        """Percentile in seconds, linear between order statistics; asked for by name it is given from any count."""
        return float(np.percentile(self.values(metric), percentile))

    def mean(self, metric: LatencyMetric) -> float:
        """Σ values / count, seconds."""
        return float(self.values(metric).mean())

    def median(self, metric: LatencyMetric) -> float:
        """50th percentile, seconds."""
        return self.percentile(metric, 50)

    def std(self, metric: LatencyMetric) -> float:
        """√(Σ (value − mean)² / count), seconds."""
        return float(self.values(metric).std())

    def value(self, name: str) -> float:
        """A metric by its flat name, e.g. `p95_ttft_ms`, `request_goodput`, `error_rate`.

        Raises:
            UndefinedMetricError: no such metric, or these records do not define it.
        """
        match = _LATENCY_NAME.fullmatch(name)
        if match:
            return 1000 * self._latency(match)
        if name == "duration":
            return self.duration_s
        if name in (*_COUNTS, *_RATES, "request_goodput", "slo_attainment", "error_rate"):
            return float(getattr(self, name))
        raise UndefinedMetricError(f"no metric {name!r}", fix="Use names like p95_ttft_ms or request_throughput")

    def _latency(self, match: re.Match[str]) -> float:
        metric = next(m for m in LATENCY_METRICS if m == match[3])
        if match[2] is not None:
            return self.percentile(metric, float(match[2]))
        summary = {"mean": self.mean, "median": self.median, "std": self.std}[match[1]]
        return summary(metric)

    def flat(self, *, thin_tails: bool = False) -> dict[str, float]:
        """Every defined metric under its `vllm bench serve` name; latencies in milliseconds.

        Args:
            thin_tails: also give percentiles of fewer requests than `min_requests`.
        """
        flat = {}
        for name in self._flat_names(thin_tails):
            try:
                flat[name] = self.value(name)
            except UndefinedMetricError:
                continue
        return flat

    def _flat_names(self, thin_tails: bool) -> Iterator[str]:
        yield from ("duration", *_COUNTS, *_RATES, "request_goodput", "slo_attainment", "error_rate")
        for metric in LATENCY_METRICS:
            yield from (f"{summary}_{metric}_ms" for summary in ("mean", "median", "std"))
            for percentile in FLAT_PERCENTILES:
                if thin_tails or self._num_requests(metric) >= min_requests(percentile):
                    yield f"p{percentile:g}_{metric}_ms"

    def notes(self) -> list[str]:
        """What a reader of `flat()` must know: the percentiles left out and why."""
        needed = min_requests(99)
        if self.completed >= needed:
            return []
        return [f"no p99: {self.completed} completed requests, {needed} are needed (give a longer workload)"]

    def _num_requests(self, metric: LatencyMetric) -> int:
        return len(np.unique(self.arrays.samples(metric).owners))

    def _duration(self, name: str) -> float:
        if self.duration_s <= 0:
            raise _undefined(name, "the replay has no duration")
        return self.duration_s

    def _good(self, name: str) -> Mask:
        if self.good is None:
            raise _undefined(name, "no SLOs were given")
        return self.good


def summarize(
    records: Sequence[RequestRecord] | RecordArrays,
    slos: Slos | None = None,
    *,
    duration_s: float | None = None,
    clock: Clock = "intended",
) -> ServingMetrics:
    """The metrics of a replay.

    Args:
        slos: what a request must meet to count towards goodput.
        duration_s: the time that rates are per; by default from the first start to the last end of the requests that
            were not cut.
        clock: `sent` lets TTFT and E2EL start when a request was sent, which leaves out what it waited in the client;
            its schedule lag is 0 then.
    """
    arrays = as_arrays(records)
    if clock == "sent":
        arrays = replace(arrays, intended_start_s=arrays.sent_s)
    good = None if slos is None else meets_slos(arrays, slos) & arrays.counted
    duration_s = span_s(arrays) if duration_s is None else duration_s
    return ServingMetrics(arrays=arrays, duration_s=duration_s, good=good, clock=clock)


def span_s(arrays: RecordArrays) -> float:
    """Last end − first intended start over the requests that count, 0 when there is none."""
    counted = arrays.counted
    if not counted.any():
        return 0.0
    return float(arrays.end_s[counted].max() - arrays.intended_start_s[counted].min())


def _undefined(name: str, why: str) -> UndefinedMetricError:
    return UndefinedMetricError(f"{name} is undefined: {why}", fix="Look at the records' status and error columns")
