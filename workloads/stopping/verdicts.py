"""`Verdicts`: which requests of a running replay are above a limit, in an order that favours nobody.

Requests end in another order than they start, and the fast ones end first. So they are counted in order of their
intended start, each as soon as it is decided and everything before it is. A request is decided when it ended, when its
first token settled its TTFT, or, still in flight, once it is above the limit: at most `limit_s` after its start. What
is counted is therefore always a leading part of the traffic, not a selection by speed. Does not know when to stop.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from workloads.record_arrays import Floats
from workloads.records import RequestRecord
from workloads.stopping.limit import PercentileLimit
from workloads.stopping.stop_rule import InFlight


class Verdicts:
    """Of one limit on one replay."""

    def __init__(self, limit: PercentileLimit) -> None:
        self._limit = limit
        self._waiting: list[tuple[float, str]] = []  # heap by intended start: seen and not counted
        self._seen: set[str] = set()
        self._above: set[str] = set()
        self._value: dict[str, float | None] = {}  # of the decided; None: it has no such metric
        self._counted: list[str] = []
        self.num_above = 0  # of those counted

    @property
    def num_counted(self) -> int:
        return len(self._counted)

    @property
    def num_known_above(self) -> int:
        """Counted or not: those whose turn has not come are above all the same."""
        return len(self._above)

    def values(self) -> Floats:
        """Of the counted, in order; of one still in flight what it is at least."""
        return np.array([self._value[request] for request in self._counted], np.float64)

    def update(self, now_s: float, ended: Sequence[RequestRecord], in_flight: Sequence[InFlight]) -> None:
        """Take what a look tells."""
        for record in ended:
            self._meet(record.request_id, record.intended_start_s)
            self._decide(record.request_id, self._limit.ended_value(record))
        for flight in in_flight:
            self._meet(flight.request_id, flight.intended_start_s)
            least = self._limit.least_value(flight, now_s)
            if least > self._limit.limit_s or self._limit.is_final(flight):
                self._decide(flight.request_id, least)
        self._count()

    def _meet(self, request: str, intended_start_s: float) -> None:
        if request not in self._seen:
            self._seen.add(request)
            heapq.heappush(self._waiting, (intended_start_s, request))

    def _decide(self, request: str, value: float | None) -> None:
        """A request that failed after it was decided stays what it was counted as, but makes nothing certain."""
        if value is None:
            self._above.discard(request)
            self._value.setdefault(request, None)
            return
        self._value[request] = value
        if value > self._limit.limit_s:
            self._above.add(request)

    def _count(self) -> None:
        while self._waiting and self._waiting[0][1] in self._value:
            _, request = heapq.heappop(self._waiting)
            value = self._value[request]
            if value is not None:
                self._counted.append(request)
                self.num_above += value > self._limit.limit_s
