"""`PercentileLimit`: "p95 of TTFT is at most 0.3 s", as a yes or no about each request.

p95 <= limit says that at most 5% of the requests are above the limit, so each request is a Bernoulli trial. Does not
know how many trials it takes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from workloads.records import RequestRecord
from workloads.stopping.stop_rule import InFlight

LimitedMetric = Literal["ttft", "tpot", "e2el"]


@dataclass(frozen=True, kw_only=True)
class PercentileLimit:
    """An upper bound in seconds on a percentile over the requests of a replay."""

    metric: LimitedMetric
    percentile: float
    limit_s: float

    @property
    def share(self) -> float:
        """Of the requests that may be above."""
        return 1 - self.percentile / 100

    @property
    def flat_name(self) -> str:
        """As in `ServingMetrics.value`, e.g. `p95_ttft_ms`."""
        return f"p{self.percentile:g}_{self.metric}_ms"

    def num_that_decide(self, num_requests: int) -> int:
        """So many requests above put the percentile of all above, whatever the others do.

        The percentile is linear between the order statistics floor(h) and floor(h) + 1, h = (n - 1) p, as numpy's; it
        is above when both are. Requests that fail leave the percentile, which only lowers the number.
        """
        return num_requests - math.floor((num_requests - 1) * self.percentile / 100 + 1e-9)

    def ended_value(self, record: RequestRecord) -> float | None:
        """The metric of an ended request in seconds; None where it has none and counts on no side."""
        times = record.token_times_s
        if record.status != "ok" or not times:
            return None
        if self.metric == "ttft":
            return times[0] - record.intended_start_s
        e2el = times[-1] - record.intended_start_s
        if self.metric == "e2el":
            return e2el
        if record.output_tokens < 2:
            return None
        return (times[-1] - times[0]) / (record.output_tokens - 1)

    def least_value(self, flight: InFlight, now_s: float) -> float:
        """What the metric of a request in flight will at least be."""
        if self.metric == "tpot" or (self.metric == "e2el" and flight.is_ending):
            return 0.0
        if self.metric == "ttft" and flight.first_token_s is not None:
            return flight.first_token_s - flight.intended_start_s
        return now_s - flight.intended_start_s

    def is_final(self, flight: InFlight) -> bool:
        """Whether `least_value` will not grow."""
        return self.metric == "ttft" and flight.first_token_s is not None

    def __str__(self) -> str:
        return f"p{self.percentile:g} {self.metric.upper()} <= {1000 * self.limit_s:.4g} ms"
