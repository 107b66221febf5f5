"""`Arrivals`: when which request reaches a scheduler, those included that wait for others' ends.

Does not know servers.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf

import numpy as np

from engine.simulator.traffic import Traffic


class Arrivals:
    """Requests in the order in which they come, those included that wait for others' ends."""

    def __init__(self, traffic: Traffic, overhead_s: float) -> None:
        self.start_s = [inf] * len(traffic)
        self._overhead_s = overhead_s
        self._queue: list[tuple[float, int]] = []
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
        """When the next one reaches a scheduler; infinity when none is known."""
        return self._queue[0][0] if self._queue else inf

    def take(self) -> int:
        return heappop(self._queue)[1]

    def ended(self, request: int, end_s: float) -> None:
        """Let those come who waited for it."""
        followers = self._followers.get(request, ())
        for follower in followers:
            self._add(follower, end_s + self._think_s[follower])
        if self._held_back and not followers:
            self._add(self._held_back.pop(), end_s)

    def _add(self, request: int, start_s: float) -> None:
        self.start_s[request] = start_s
        heappush(self._queue, (start_s + self._overhead_s, request))
