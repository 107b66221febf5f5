"""Queues small enough to simulate by the hundred, and what a stop rule sees of them while they run."""

from collections.abc import Iterator

import numpy as np
from record_cases import record

from workloads.record_arrays import Floats
from workloads.records import RequestRecord
from workloads.stopping.stop_rule import InFlight, StopRule


def poisson(rng: np.random.Generator, count: int) -> Floats:
    """Arrivals, one a second."""
    return np.cumsum(rng.exponential(1.0, count))


def bursty(rng: np.random.Generator, count: int) -> Floats:
    """Arrivals in two phases, 0.6 a second for 150 s and 1.6 a second for 60 s in the mean."""
    gaps: list[float] = []
    phase, left = 0, rng.exponential(150.0)
    while len(gaps) < count:
        gaps.append(rng.exponential((1 / 0.6, 1 / 1.6)[phase]))
        left -= gaps[-1]
        if left < 0:
            phase = 1 - phase
            left = rng.exponential((150.0, 60.0)[phase])
    return np.cumsum(gaps)


def sojourns(arrivals: Floats, service: Floats) -> Floats:
    """Waiting and service times of one server, first come first served (Lindley's recursion, in closed form)."""
    walk = np.concatenate([[0.0], np.cumsum(service[:-1] - np.diff(arrivals))])
    return np.asarray(walk - np.minimum.accumulate(walk) + service)


def replayed(arrivals: Floats, latencies: Floats) -> list[RequestRecord]:
    """One token each: TTFT = E2EL."""
    return [record(str(i), float(a), float(a + v)) for i, (a, v) in enumerate(zip(arrivals, latencies, strict=True))]


def looks(records: list[RequestRecord], every_s: float) -> Iterator[tuple[float, list[RequestRecord], list[InFlight]]]:
    """What a replay would show."""
    now, last = 0.0, max(r.end_s for r in records)
    seen: set[str] = set()
    while now <= last + every_s:
        now += every_s
        ended = sorted((r for r in records if r.end_s <= now and r.request_id not in seen), key=lambda r: r.end_s)
        seen |= {r.request_id for r in ended}
        flying = [
            InFlight(r.request_id, r.intended_start_s, r.first_token_s if (r.first_token_s or now) < now else None)
            for r in records
            if r.intended_start_s <= now < r.end_s
        ]
        yield now, ended, flying


def play(rule: StopRule, records: list[RequestRecord], *, every_s: float = 1.0) -> str | None:
    """The reason why a rule stopped, None when it did not."""
    for now, ended, flying in looks(records, every_s):
        reason = rule.look(now, ended, flying)
        if reason is not None:
            return reason
    return None
