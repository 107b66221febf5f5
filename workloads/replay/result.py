"""`ReplayResult`: what a replay gives back.

Does not know how requests were sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from workloads.record_arrays import RecordArrays
from workloads.records import RequestRecord

MAX_LAG_SHARE = 0.05  # of the median TTFT, for the p99 schedule lag
_LATE_REQUESTS = 5  # that a percentile must leave above it to say anything


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """What a server answered, kept only when asked for; `token_ids` is empty when the server sends no ids."""

    text: str = field(repr=False)  # private
    token_ids: tuple[int, ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class ReplayResult:
    """Records in order of intended start, and how the replay went."""

    records: tuple[RequestRecord, ...] = field(repr=False)
    responses: Mapping[str, Response] = field(
        default_factory=dict, repr=False
    )  # by request id; empty unless text was kept
    duration_s: float
    zero_monotonic_s: float  # time.monotonic() at second 0 of the records, to join them with other series
    num_unsent: int = 0  # never due, or due after the end
    num_retries: int = 0  # sent again after a refusal or a failed connection, where asked for
    ended_by: Literal["completion", "limit", "stop_rule", "stall"] = "completion"
    stop_reason: str | None = (
        None  # the stop rule's words: what was replayed is a part, and no measurement of the whole
    )
    void_reason: str | None = None  # why the latencies mean nothing: the client was late itself
    served_models: tuple[str, ...] = ()  # names that the server answered to
    notes: tuple[str, ...] = ()


def void_reason(records: Sequence[RequestRecord], loop_lags_s: Sequence[float] = ()) -> str | None:
    """Why the replay is void: p99 schedule lag above 5% of the median TTFT (design.md, measurement rules).

    No p99 is told from fewer than 500 requests, this one neither: a shorter replay is judged by the highest percentile
    that leaves five requests above it.

    Args:
        loop_lags_s: how late the client's event loop was (`LoopLag`), judged in the same way: with a fixed number in
            flight there is no schedule to lag behind.
    """
    arrays = RecordArrays.from_records(records)
    ttfts = arrays.samples("ttft").values
    if not len(ttfts):
        return None
    ttft = float(np.median(ttfts))
    for what, lags in (("schedule lag", arrays.samples("schedule_lag").values), ("event loop lag", loop_lags_s)):
        if not len(lags):
            continue
        percentile = min(99.0, 100 * max(0.5, 1 - _LATE_REQUESTS / len(lags)))
        lag = float(np.percentile(lags, percentile))
        if lag > MAX_LAG_SHARE * ttft:
            return (
                f"the load generator was late: p{percentile:.3g} {what} {1000 * lag:.2f} ms is more than "
                f"{MAX_LAG_SHARE:.0%} of the median TTFT, {1000 * ttft:.2f} ms"
            )
    return None
