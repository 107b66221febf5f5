"""Kept, violated or dominated: by the full trace, and by the stop rules as early as they say it.

Does not know where configs come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.benchmarks.short_trials.run import Run
from workloads.records import RequestRecord
from workloads.stopping.limit import PercentileLimit
from workloads.stopping.settled import Settled
from workloads.stopping.stop_rule import InFlight

LOOK_EVERY = 5  # requests
RIVAL = "rival"


def decide_fully(run: Run, limits: dict[str, PercentileLimit], rival: PercentileLimit | None) -> tuple[str, ...]:
    """What is true of a full trace."""
    found = ["violated"] if any(run.percentile(limit) > limit.limit_s for limit in limits.values()) else []
    found += ["dominated"] if rival is not None and run.percentile(rival) > rival.limit_s else []
    return tuple(found) or ("kept",)


def decide_early(
    run: Run, limits: dict[str, PercentileLimit], rival: PercentileLimit | None, known: dict[str, float | None]
) -> tuple[str | None, int]:
    """The decision, None when the trace ended without one; and the requests sent by then."""
    wanted = limits | ({RIVAL: rival} if rival is not None else {})
    rule = Settled(wanted, num_requests=len(run.records), clustering=known)
    for num_sent, now, ended, flying in looks(run.records):
        reason = rule.look(now, ended, flying)
        if reason is not None:
            if rule.decision == "met":
                return "kept", num_sent
            return ("dominated" if reason.startswith(RIVAL) else "violated"), num_sent
    return None, len(run.records)


def looks(records: Sequence[RequestRecord]) -> Iterator[tuple[int, float, list[RequestRecord], list[InFlight]]]:
    """What a replay shows after every `LOOK_EVERY` requests sent, and at its end."""
    by_end = sorted(records, key=lambda record: record.end_s)
    num_ended, flying = 0, {}
    for row, record in enumerate(records):
        flying[record.request_id] = record
        if (row + 1) % LOOK_EVERY and row + 1 < len(records):
            continue
        now = record.intended_start_s if row + 1 < len(records) else by_end[-1].end_s
        begin = num_ended
        while num_ended < len(by_end) and by_end[num_ended].end_s <= now:
            flying.pop(by_end[num_ended].request_id)
            num_ended += 1
        known = [(r, r.first_token_s if (r.first_token_s or now) < now else None) for r in flying.values()]
        told = [InFlight(r.request_id, r.intended_start_s, first) for r, first in known]
        yield row + 1, now, by_end[begin:num_ended], told
