"""`LimitTest`: whether one limit will be kept or exceeded by a replay that is still running.

Two kinds of answers. *Certain*: so many requests are above (or within) that the rest cannot turn it; needs no
assumption at all. *Beyond doubt*: a sequential test of the share above, with error α under continuous looks. Does not
know what follows from the answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from workloads.records import RequestRecord
from workloads.stopping.clustering import clustering_of, discount
from workloads.stopping.evidence import Direction, log_evidence
from workloads.stopping.limit import PercentileLimit
from workloads.stopping.stop_rule import InFlight
from workloads.stopping.verdicts import Verdicts

ALPHA = 0.05
_PATIENCE = 1.05  # the counted requests' own clustering is looked at again when so many times more are counted


class LimitTest:
    """Of one limit on one replay.

    Args:
        num_requests: of the whole replay.
        alpha: probability of each wrong answer, "exceeded" and "met", at most.
        clustering: of requests in replays of the same traffic (`clustering_of`), 1: they are independent; None: not
            known, then only certain answers are given.
    """

    def __init__(self, limit: PercentileLimit, *, num_requests: int, alpha: float, clustering: float | None) -> None:
        self.limit = limit
        self._num_requests, self._bar, self._clustering = num_requests, math.log(1 / alpha), clustering
        self._verdicts = Verdicts(limit)
        self._decisive = limit.num_that_decide(num_requests)
        self._next_look: dict[Direction, int] = {"more": 0, "fewer": 0}
        self.exceeded = ""  # why it is, in words, once it is beyond doubt

    def update(self, now_s: float, ended: Sequence[RequestRecord], in_flight: Sequence[InFlight]) -> None:
        """Take what a look tells, and see whether the limit is exceeded; once it is it stays so."""
        found = self._verdicts
        found.update(now_s, ended, in_flight)
        if self.exceeded:
            return
        if found.num_known_above >= self._decisive:
            self.exceeded = self._words(found.num_known_above, self._num_requests, "certain")
        elif self._is_proved("more"):
            self.exceeded = self._words(found.num_above, found.num_counted, "beyond doubt")

    def met(self) -> str:
        """Why the limit is met, in words; empty while that is not decided."""
        found = self._verdicts
        if found.num_counted - found.num_above >= self._num_requests - self._decisive + 2:
            return self._words(found.num_above, found.num_counted, "certain")
        return self._words(found.num_above, found.num_counted, "beyond doubt") if self._is_proved("fewer") else ""

    @property
    def num_counted(self) -> int:
        return self._verdicts.num_counted

    def _is_proved(self, direction: Direction) -> bool:
        """By the counted requests, taken for as clustered as references are, and as they are themselves."""
        found = self._verdicts
        if self._clustering is None or not found.num_counted:
            return False
        evidence = log_evidence(found.num_above, found.num_counted, share=self.limit.share, direction=direction)
        if evidence < self._bar * discount(self._clustering) or found.num_counted < self._next_look[direction]:
            return False
        own = clustering_of(found.values(), self.limit.share)
        self._next_look[direction] = math.ceil(_PATIENCE * found.num_counted)
        return evidence >= self._bar * discount(max(own, self._clustering))

    def _words(self, num_above: int, num_requests: int, how: str) -> str:
        limit_ms, share = 1000 * self.limit.limit_s, 100 * self.limit.share
        return (
            f"{num_above} of {num_requests} requests have {self.limit.metric.upper()} above {limit_ms:.4g} ms, "
            f"{share:.3g}% of them may ({how})"
        )


def limit_tests(
    limits: Mapping[str, PercentileLimit],
    *,
    num_requests: int,
    clustering: Mapping[str, float | None],
    alpha: float,
) -> dict[str, LimitTest]:
    """A test for each of several named limits of one replay, which share the error."""
    return {
        name: LimitTest(limit, num_requests=num_requests, alpha=alpha / len(limits), clustering=clustering.get(name))
        for name, limit in limits.items()
    }
