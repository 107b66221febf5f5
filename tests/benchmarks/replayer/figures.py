"""What a load generator says, held against what the mock server saw.

Does not run anything.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tests.benchmarks.replayer.load_generator import Floats, Said, ToolError
from tests.benchmarks.replayer.mock_server import Timing, Truth


class Mock(NamedTuple):
    """The mock's own faults."""

    first_chunk_late_p99_ms: float  # beyond the wait it was told
    loop_lag_p50_ms: float
    loop_lag_p99_ms: float
    cpu_share: float  # of its core, idle parts of the run included


class Figures(NamedTuple):
    """One tool at one rate; milliseconds where the name says so."""

    num_requests: int  # that the tool speaks of
    achieved_rate: float  # requests/s at the mock: the slope of arrivals over their schedule, or their number over time
    rate_error_percent: float
    lag_p50_ms: float | None  # of the arrival at the mock behind the schedule, placed as well as it fits
    lag_p99_ms: float | None  # None, as whatever counts from the schedule, where nobody knows it
    own_lag_p99_ms: float | None  # what the tool says of itself
    ttft_p50_ms: float  # said by the tool
    ttft_p50_true_ms: float  # first chunk written − request received
    ttft_p99_ms: float
    ttft_p99_true_ms: float | None  # first chunk written − intended arrival: what a user waits for
    ttft_added_p50_ms: float  # median over requests of (said − first chunk written + request received)
    ttft_added_p99_ms: float
    e2el_p50_ms: float
    e2el_p50_true_ms: float  # last chunk written − request received
    e2el_p99_ms: float
    e2el_p99_true_ms: float | None  # last chunk written − intended arrival
    mock: Mock


def figures(said: Said, truth: Truth, rate: float, timing: Timing) -> Figures:
    """Both sides in the order sent.

    Raises:
        ToolError: the mock did not see as many requests as the tool speaks of.
    """
    truth = _matched(said, truth)
    intended = schedule(said, truth, rate) if said.is_steady else None
    waited = truth.first - truth.received
    added = said.ttft - waited
    achieved = _achieved(truth, intended, rate)
    return Figures(
        len(waited),
        achieved,
        100 * abs(achieved / rate - 1),
        None if intended is None else _ms(truth.received - intended, 50),
        None if intended is None else _ms(truth.received - intended, 99),
        None if said.lag is None else _ms(said.lag, 99),
        _ms(said.ttft, 50),
        _ms(waited, 50),
        _ms(said.ttft, 99),
        None if intended is None else _ms(truth.first - intended, 99),
        _ms(added, 50),
        _ms(added, 99),
        _ms(said.e2el, 50),
        _ms(truth.last - truth.received, 50),
        _ms(said.e2el, 99),
        None if intended is None else _ms(truth.last - intended, 99),
        mock_figures(truth, timing),
    )


def _achieved(truth: Truth, intended: Floats | None, rate: float) -> float:
    """A slope, not the span: one late request at the end says nothing of the rate."""
    if intended is None:
        return (len(truth.received) - 1) / float(np.ptp(truth.received))
    return rate / float(np.polyfit(intended - intended[0], truth.received - truth.received[0], 1)[0])


def mock_figures(truth: Truth, timing: Timing) -> Mock:
    """How well the mock kept up."""
    late = truth.first - truth.received - timing.first_s
    return Mock(_ms(late, 99), _ms(truth.loop_lag, 50), _ms(truth.loop_lag, 99), truth.cpu_share)


def stall_charged(said: Said, truth: Truth, rate: float, timing: Timing) -> tuple[float, float]:
    """How much of a stall a tool charges.

    Over the requests intended from `first_s` before the stall until its end: Σ (TTFT − its median) as the tool says it,
    divided by Σ (first chunk written − intended arrival − its median); and that second sum in seconds. More than all
    of it is charged by a tool that is itself held up by the answers that come at once afterwards.

    Raises:
        ToolError: nobody knows which requests were due in it.
    """
    if not said.is_steady:
        raise ToolError("stall: it does not tell when its requests were due")
    truth = _matched(said, truth)
    intended = schedule(said, truth, rate)
    begin, end = truth.stall
    caught = (intended >= begin - timing.first_s) & (intended < end)
    if not caught.any():
        raise ToolError("no request was due in the stall")
    true = truth.first - intended
    total = float((true[caught] - np.median(true)).sum())
    return float((said.ttft[caught] - np.nanmedian(said.ttft)).sum()) / total, total


def schedule(said: Said, truth: Truth, rate: float) -> Floats:
    """Intended arrivals on the mock's clock: the steps as placed that the tool is never early and least late for."""
    steps = np.arange(len(truth.received)) / rate if said.intended is None else said.intended
    return steps + float((truth.received - steps).min())


def _matched(said: Said, truth: Truth) -> Truth:
    if not 0 < len(said.ttft) <= len(truth.received):
        raise ToolError(f"the tool speaks of {len(said.ttft)} requests, the mock saw {len(truth.received)}")
    return truth.tail(len(said.ttft))


def _ms(values: Floats, percentile: float) -> float:
    return 1000 * float(np.nanpercentile(values, percentile))
