"""`Arrivals`: when which request reaches a scheduler, those included that wait for others' ends.

Does not know servers.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf

import numpy as np

from engine.simulator.traffic import Traffic


class Arrivals:
    """Requests in the order in which they come, those included that wait for others' ends.

    Ends may be told in any order: they count in order of time, when `next_s` has been reached.
    """

    def __init__(self, traffic: Traffic, overhead_s: float) -> None:
        self.start_s = [inf] * len(traffic)
        self._overhead_s = overhead_s
        self._queue: list[tuple[float, int]] = []
        self._ends: list[tuple[float, int]] = []  # told, and not yet counted
        self._followers: dict[int, list[int]] = {}
        self._think_s = [0.0] * len(traffic) if traffic.think_s is None else traffic.think_s.tolist()
        arrival_s = traffic.arrival_s.tolist()
        roots = list(range(len(traffic)))
        if traffic.parent is not None:
            roots = np.flatnonzero(traffic.parent < 0).tolist()
            for request in np.flatnonzero(traffic.parent >= 0).tolist():
                self._followers.setdefault(int(traffic.parent[request]), []).append(request)
        roots.sort(key=arrival_s.__getitem__)
        limit = traffic.max_concurrency or len(roots)
        self._held_back = roots[limit:][::-1]
        self._closed_loop = limit < len(roots)
        for request in roots[:limit]:
            self._add(request, arrival_s[request])

    @property
    def depend_on_ends(self) -> bool:
        """Whether a request's end can bring another."""
        return bool(self._followers) or self._closed_loop

    @property
    def next_s(self) -> float:
        """When the next one reaches a scheduler or an end that was told may bring one; infinity when none is known."""
        arrival_s = self._queue[0][0] if self._queue else inf
        return min(arrival_s, self._ends[0][0]) if self._ends else arrival_s

    def take(self) -> int | None:
        """Who comes at `next_s`; None for an end, whose followers may come now or later."""
        if self._ends and (not self._queue or self._ends[0][0] <= self._queue[0][0]):
            self._let_come(*heappop(self._ends))
            return None
        return heappop(self._queue)[1]

    def ended(self, request: int, end_s: float) -> None:
        """Those who waited for it will come."""
        heappush(self._ends, (end_s, request))

    def _let_come(self, end_s: float, request: int) -> None:
        followers = self._followers.get(request, ())
        for follower in followers:
            self._add(follower, end_s + self._think_s[follower])
        if self._held_back and not followers:
            self._add(self._held_back.pop(), end_s)

    def _add(self, request: int, start_s: float) -> None:
        self.start_s[request] = start_s
        heappush(self._queue, (start_s + self._overhead_s, request))
