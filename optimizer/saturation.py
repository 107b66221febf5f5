"""How many tokens per second a server gives when it never waits for work: a short closed-loop probe.

Does not know SLOs or prices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.backend import EngineError, FailureKind
from optimizer.client import Client
from workloads.estimate import Estimate
from workloads.record_arrays import Floats
from workloads.records import RequestRecord
from workloads.workload import Workload

NUM_BATCHES = 8
MIN_BATCHES = 3  # with tokens in them
MAX_DOUBLINGS = 3
RAMP_SHARE = 0.2  # of the probe, left out at its start
T_QUANTILE = 2.365  # Student's t with 7 degrees of freedom, 97.5%


class Span(NamedTuple):
    """Seconds on the replay's clock."""

    start_s: float
    end_s: float


def saturate(client: Client, workload: Workload, *, concurrency: int, probe_s: float) -> Estimate:
    """Input plus output tokens per second with `concurrency` requests in flight, by batch means.

    An engine that shows too few tokens in the probe is given twice the time, at most `MAX_DOUBLINGS` times. A probe in
    which the client was late is repeated once; what a late client gets out of an engine is less than there is.

    Raises:
        EngineError: the engine died or hung, or is too slow to be probed.
    """
    for _ in range(1 + MAX_DOUBLINGS):
        result = client.send(workload, mode="concurrency", concurrency=concurrency, limit_s=probe_s)
        if result.void_reason:
            result = client.send(workload, mode="concurrency", concurrency=concurrency, limit_s=probe_s)
        span = steady_span(result.records, cut=result.ended_by == "limit", end_s=min(probe_s, result.duration_s))
        rate = token_rate(result.records, span)
        if rate is not None:
            return rate
        probe_s *= 2
    what = f"the engine gave hardly a token in {probe_s / 2:g} s at full load: too slow to measure its capacity"
    raise EngineError(what, kind=FailureKind.TIMEOUT, log_path=client.server.log_path)


def steady_span(records: Sequence[RequestRecord], *, cut: bool, end_s: float) -> Span:
    """The probe without ramp-up and, where it ran out of requests, without the drain.

    It drains from the moment the last request was sent; when little is left without both, the whole probe counts.
    """
    first, last_sent = min(r.sent_s for r in records), max(r.sent_s for r in records)
    end = end_s if cut else last_sent
    start = first + RAMP_SHARE * (end_s - first)
    return Span(start, end) if end - start >= 0.3 * (end_s - first) else Span(first, end_s)


def token_rate(records: Sequence[RequestRecord], span: Span) -> Estimate | None:
    """Tokens per second inside the span: outputs when they came, inputs when their first token came.

    Batch means: the span is cut into `NUM_BATCHES` equal parts; the interval is Student's t on the mean of their
    rates, taken to the logarithm (value x exp(± t s / (mean √n))) so that it stays positive. None when fewer
    than `MIN_BATCHES` of them saw a token.
    """
    times, amounts = _token_events(records)
    edges = np.linspace(*span, NUM_BATCHES + 1)
    rates = np.histogram(times, bins=edges, weights=amounts)[0] / np.diff(edges)
    if np.count_nonzero(rates) < MIN_BATCHES:
        return None
    value = float(rates.mean())
    width = float(np.exp(T_QUANTILE * rates.std(ddof=1) / (value * NUM_BATCHES**0.5)))
    num_requests = sum(any(span.start_s <= when <= span.end_s for when in r.token_times_s) for r in records)
    return Estimate(value=value, low=value / width, high=value * width, num_samples=num_requests)


def _token_events(records: Sequence[RequestRecord]) -> tuple[Floats, Floats]:
    """When tokens came, and how many at once."""
    times, amounts = [], []
    for record in records:
        if record.token_times_s:
            times.append(record.token_times_s[0])
            amounts.append(float(record.input_tokens))
            times.extend(record.token_times_s)
            amounts.extend([1.0] * len(record.token_times_s))
    return np.array(times), np.array(amounts)
