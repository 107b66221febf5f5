"""`MergedLooks`: what several clients report, as the looks of one replay that a stop rule is made for.

A look is a moment up to which *every* client has reported, so that no request that began before it is still to come:
rules count requests in order of their start. Does not know rules or processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from workloads.records import RequestRecord
from workloads.stopping.stop_rule import InFlight


class Look(NamedTuple):
    """As `StopRule.look` takes it."""

    now_s: float
    ended: list[RequestRecord]
    in_flight: list[InFlight]


class MergedLooks:
    """Of `num_clients` clients on one clock."""

    def __init__(self, num_clients: int) -> None:
        self._told_s = [0.0] * num_clients
        self._in_flight: list[Sequence[InFlight]] = [()] * num_clients
        self._ended: list[RequestRecord] = []  # and not looked at
        self._looked_s = 0.0

    def report(self, client: int, now_s: float, ended: Sequence[RequestRecord], in_flight: Sequence[InFlight]) -> None:
        """What a client saw at `now_s`; infinity when it has nothing more to send."""
        self._told_s[client] = now_s
        self._in_flight[client] = in_flight
        self._ended += ended

    def take(self) -> Look | None:
        """The look at the latest moment that all have told about; None when there is none since the last one."""
        now_s = min(self._told_s)
        if now_s <= self._looked_s or now_s == float("inf"):
            return None
        self._looked_s = now_s
        begun = [record for record in self._ended if record.intended_start_s <= now_s]
        self._ended = [record for record in self._ended if record.intended_start_s > now_s]
        flying = [f for flights in self._in_flight for f in flights if f.intended_start_s <= now_s]
        return Look(now_s, begun, flying)
