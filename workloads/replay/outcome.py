"""`Outcome`: what all clients of a replay did together, and the `ReplayResult` that it makes.

Does not know how the clients were run.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from workloads.records import RequestRecord
from workloads.replay.part import Part
from workloads.replay.result import ReplayResult, void_reason
from workloads.replay.run import End


class Outcome(NamedTuple):
    """The clients' parts in their order; `changes` are those of requests that client processes prepared."""

    parts: list[Part]
    end: End
    changes: Counter[str]


def merged_records(parts: Sequence[Part]) -> tuple[RequestRecord, ...]:
    """In order of intended start."""
    return tuple(heapq.merge(*(part.records for part in parts), key=lambda record: record.intended_start_s))


def result_of(
    outcome: Outcome,
    records: tuple[RequestRecord, ...],
    *,
    num_requests: int,
    served_models: tuple[str, ...],
    notes: Sequence[str],
) -> ReplayResult:
    """Args: records: `merged_records` of the parts. num_requests: sent or not."""
    parts, end = outcome.parts, outcome.end
    num_unsent = num_requests - len(records)
    stopped = f"stopped early, {num_unsent} requests were not sent: {end.reason}"
    counts = sum((Counter(part.counts) for part in parts), Counter[str]())  # without what did not occur
    return ReplayResult(
        records=records,
        responses={name: response for part in parts for name, response in part.responses.items()},
        duration_s=max(part.duration_s for part in parts),
        zero_monotonic_s=parts[0].zero_s,
        num_unsent=num_unsent,
        num_retries=sum(part.num_retries for part in parts),
        ended_by=end.by,
        stop_reason=end.reason,
        void_reason=_void_reason(parts),
        served_models=served_models,
        notes=(
            *notes,
            *([stopped] if end.by == "stop_rule" else []),
            *(f"{count} {what}" for what, count in counts.items()),
        ),
    )


def _void_reason(parts: Sequence[Part]) -> str | None:
    """One late client spoils all: its requests are in every percentile, and its lateness left the others more room."""
    for number, part in enumerate(parts, start=1):
        reason = void_reason(part.records, part.loop_lags_s)
        if reason is not None:
            return reason if len(parts) == 1 else f"client process {number} of {len(parts)}: {reason}"
    return None
