"""`Settled`: stops when it is decided, one way or the other, whether limits are kept: enough evidence.

What such a replay measured is enough for that decision and no more: it is no measurement of the percentiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from workloads.records import RequestRecord
from workloads.stopping.limit import PercentileLimit
from workloads.stopping.limit_test import ALPHA, limit_tests
from workloads.stopping.stop_rule import InFlight


class Settled:
    """Args as `Violated`'s; `decision` is None until there is one."""

    def __init__(
        self,
        limits: Mapping[str, PercentileLimit],
        *,
        num_requests: int,
        clustering: Mapping[str, float | None],
        alpha: float = ALPHA,
    ) -> None:
        self._tests = limit_tests(limits, num_requests=num_requests, clustering=clustering, alpha=alpha)
        self.decision: Literal["violated", "met"] | None = None

    def look(self, now_s: float, ended: Sequence[RequestRecord], in_flight: Sequence[InFlight]) -> str | None:
        for name, test in self._tests.items():
            test.update(now_s, ended, in_flight)
            if test.exceeded:
                self.decision = "violated"
                return f"{name} is violated: {test.exceeded}"
        met = {name: test.met() for name, test in self._tests.items()}
        if not all(met.values()):
            return None
        self.decision = "met"
        return "; ".join(f"{name} is met: {why}" for name, why in met.items())
