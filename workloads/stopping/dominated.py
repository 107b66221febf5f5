"""`Dominated`: stops when a rival that is no worse in all that a replay does not show is faster beyond doubt.

Does not know who the rivals are, nor what else is compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workloads.records import RequestRecord
from workloads.stopping.limit import PercentileLimit
from workloads.stopping.limit_test import ALPHA, LimitTest
from workloads.stopping.stop_rule import InFlight


@dataclass(frozen=True, kw_only=True)
class Rival:
    """Its latencies as limits: who exceeds them all is dominated. `clustering`: as in `LimitTest`, by flat name."""

    name: str
    limits: tuple[PercentileLimit, ...]
    clustering: Mapping[str, float | None]


class Dominated:
    """By any of several rivals.

    Args:
        alpha: probability of stopping a replay that no rival dominates, at most; shared among the rivals. All limits of
            one rival must be exceeded, each at the full level (an intersection-union test: Berger 1982).
    """

    def __init__(self, rivals: Sequence[Rival], *, num_requests: int, alpha: float = ALPHA) -> None:
        self._tests = [
            (
                rival,
                [
                    LimitTest(
                        limit,
                        num_requests=num_requests,
                        alpha=alpha / len(rivals),
                        clustering=rival.clustering.get(limit.flat_name),
                    )
                    for limit in rival.limits
                ],
            )
            for rival in rivals
        ]
        self.exceeded: tuple[PercentileLimit, ...] = ()

    def look(self, now_s: float, ended: Sequence[RequestRecord], in_flight: Sequence[InFlight]) -> str | None:
        for rival, tests in self._tests:
            for test in tests:
                test.update(now_s, ended, in_flight)
            if all(test.exceeded for test in tests):
                self.exceeded = rival.limits
                return f"dominated by {rival.name}: {'; '.join(test.exceeded for test in tests)}"
        return None
