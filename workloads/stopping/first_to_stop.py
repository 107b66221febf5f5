"""`FirstToStop`: several rules that reject, of which the first to stop decides.

Does not know what they look at.
"""

from __future__ import annotations

from collections.abc import Sequence

from workloads.records import RequestRecord
from workloads.stopping.dominated import Dominated
from workloads.stopping.limit import PercentileLimit
from workloads.stopping.stop_rule import InFlight
from workloads.stopping.violated import Violated


class FirstToStop:
    """`exceeded` are the limits that the replay is known to exceed, once it was stopped."""

    def __init__(self, rules: Sequence[Violated | Dominated]) -> None:
        self._rules = tuple(rules)
        self.exceeded: tuple[PercentileLimit, ...] = ()

    def look(self, now_s: float, ended: Sequence[RequestRecord], in_flight: Sequence[InFlight]) -> str | None:
        for rule in self._rules:
            reason = rule.look(now_s, ended, in_flight)
            if reason is not None:
                self.exceeded = rule.exceeded
                return reason
        return None
