"""`Stints`: who is running, since when, and who would be preempted first.

A stint is the time from a request's admission to its end or preemption. Does not know blocks or tokens.
"""

from __future__ import annotations

from collections.abc import Sequence


class Stints:
    """`current[request]` is the number of its stint; 0: it is not running."""

    def __init__(self, priorities: Sequence[int], *, by_priority: bool) -> None:
        self.current = [0] * len(priorities)
        self._priorities, self._by_priority = priorities, by_priority
        self._started: list[tuple[int, int, int, int]] = []  # priority, order, request, stint; some are over
        self._number = 0

    def start(self, request: int, order: int) -> None:
        """A request is admitted; `order` is that of its arrival."""
        self._number += 1
        self.current[request] = self._number
        self._started.append((self._priorities[request], order, request, self._number))

    def take_newest(self) -> int:
        """The running request to be preempted first: of the last priority, the one that came last."""
        while True:
            place = self._started.index(max(self._started)) if self._by_priority else -1
            last = self._started.pop(place)
            if self.current[last[2]] == last[3]:
                return last[2]
