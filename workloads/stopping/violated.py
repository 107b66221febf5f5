"""`Violated`: stops when a limit is exceeded beyond doubt.

Does not know whose limits they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workloads.records import RequestRecord
from workloads.stopping.limit import PercentileLimit
from workloads.stopping.limit_test import ALPHA, limit_tests
from workloads.stopping.stop_rule import InFlight


class Violated:
    """The first of several limits.

    Args:
        limits: by name, as the reason tells it.
        clustering: by name, see `LimitTest`; None where it is not known.
        alpha: probability of stopping a replay that would keep every limit, at most; shared among the limits.
    """

    def __init__(
        self,
        limits: Mapping[str, PercentileLimit],
        *,
        num_requests: int,
        clustering: Mapping[str, float | None],
        alpha: float = ALPHA,
    ) -> None:
        self._tests = limit_tests(limits, num_requests=num_requests, clustering=clustering, alpha=alpha)
        self.exceeded: tuple[PercentileLimit, ...] = ()

    def look(self, now_s: float, ended: Sequence[RequestRecord], in_flight: Sequence[InFlight]) -> str | None:
        for name, test in self._tests.items():
            test.update(now_s, ended, in_flight)
            if test.exceeded:
                self.exceeded = (test.limit,)
                return f"{name} is violated: {test.exceeded}"
        return None
