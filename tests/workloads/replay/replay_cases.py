"""Replays against the mock server, and records of replays that never were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mock_server import MockServer

from workloads.records import RequestRecord
from workloads.replay.replayer import Replayer
from workloads.replay.result import ReplayResult
from workloads.workload import Workload


def replay(server: MockServer, what: Workload, **options: Any) -> ReplayResult:
    """With a short timeout."""
    return Replayer(base_url=server.base_url, model="mock", timeout_s=10, **options).replay(what)


def statuses(records: Sequence[RequestRecord]) -> list[str]:
    return [record.status for record in records]


def lagging(count: int, *, num_late: int) -> list[RequestRecord]:
    """TTFTs of 10 ms; the first `num_late` requests were sent 2 ms late."""
    return [
        RequestRecord(
            request_id=str(i),
            intended_start_s=float(i),
            sent_s=i + (0.002 if i < num_late else 0.0),
            first_token_s=i + 0.01,
            token_times_s=(i + 0.01,),
            end_s=i + 0.01,
            input_tokens=1,
            output_tokens=1,
            status="ok",
        )
        for i in range(count)
    ]
