"""What ends a replay: limits, silence, stop rules, exceptions, Ctrl-C."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Sequence

import pytest
from mock_server import MockServer
from replay_cases import replay, statuses
from workload_cases import chat, workload

from workloads.prompts import CHAT, PreparedRequest
from workloads.records import RequestRecord
from workloads.replay.client import StreamingClient
from workloads.replay.pacing import OpenLoop
from workloads.replay.run import End, ReplayRun
from workloads.stopping.limit import PercentileLimit
from workloads.stopping.stop_rule import InFlight
from workloads.stopping.violated import Violated


def test_the_limit_cuts_what_is_in_flight_and_leaves_the_rest_unsent(server: MockServer) -> None:
    server.behaviour.gap_s = 0.05
    requests = [chat("a", 0.0, output_tokens=1), chat("b", 0.1, output_tokens=100), chat("c", 9.0)]
    result = replay(server, workload(*requests), limit_s=1.0)
    assert statuses(result.records) == ["ok", "cut"]
    assert result.records[1].output_tokens > 0
    assert result.ended_by == "limit"
    assert result.num_unsent == 1
    assert 1.0 <= result.duration_s < 5.0


def test_a_silent_server_ends_the_replay(server: MockServer) -> None:
    server.behaviour.fault = lambda _: "hang"
    result = replay(server, workload(chat("a", 0.0), chat("b", 5.0)), stall_s=0.2)
    assert result.ended_by == "stall"
    assert statuses(result.records) == ["timeout"]


class _Third:
    """Stops once it has seen three records."""

    def __init__(self) -> None:
        self.seen: list[RequestRecord] = []

    def look(self, now_s: float, ended: Sequence[RequestRecord], in_flight: Sequence[InFlight]) -> str | None:  # noqa: ARG002
        self.seen += ended
        return "seen enough" if len(self.seen) >= 3 else None


def test_a_stop_rule_ends_the_replay(server: MockServer) -> None:
    rule = _Third()
    result = replay(server, workload(*(chat(str(i), 0.05 * i) for i in range(20))), stop_rule=rule)
    assert (result.ended_by, result.stop_reason) == ("stop_rule", "seen enough")
    assert 3 <= len([r for r in result.records if r.status == "ok"]) < 20
    assert {r.request_id for r in rule.seen} == {r.request_id for r in result.records if r.status == "ok"}
    assert result.num_unsent == 20 - len(result.records)
    assert f"stopped early, {result.num_unsent} requests were not sent: seen enough" in result.notes


def test_requests_that_do_not_end_are_evidence_and_are_cut(server: MockServer) -> None:
    server.behaviour.fault = lambda _: "hang"
    limits = {"ttft:p50<100ms": PercentileLimit(metric="ttft", percentile=50, limit_s=0.1)}
    rule = Violated(limits, num_requests=6, clustering={})
    result = replay(server, workload(*(chat(str(i), 0.01 * i) for i in range(5)), chat("late", 30.0)), stop_rule=rule)
    assert result.ended_by == "stop_rule"
    assert result.stop_reason is not None
    assert re.match(r"ttft:p50<100ms is violated: [45] of 6 requests have TTFT above 100 ms", result.stop_reason)
    assert statuses(result.records) == ["cut"] * 5
    assert result.num_unsent == 1
    assert result.duration_s < 10


def test_an_exception_in_a_stop_rule_reaches_the_caller(server: MockServer) -> None:
    class Broken:
        def look(self, *_: object) -> str | None:
            raise RuntimeError("rule")

    with pytest.raises(RuntimeError, match="rule"):
        replay(server, workload(chat("a", 0.0), chat("b", 5.0)), stop_rule=Broken())


def test_an_exception_in_a_callback_reaches_the_caller(server: MockServer) -> None:
    def fail(_: RequestRecord) -> None:
        raise RuntimeError("callback")

    with pytest.raises(RuntimeError, match="callback"):
        replay(server, workload(chat("a", 0.0), chat("b", 5.0)), on_record=fail)


def test_ctrl_c_ends_the_replay_at_once(server: MockServer) -> None:
    what = workload(chat("a", 0.0), chat("b", 60.0))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in a shell's background ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            replay(server, what, on_record=lambda _: signal.raise_signal(signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_end_ordered_before_the_start_is_obeyed() -> None:
    async def run() -> ReplayRun:
        async with StreamingClient("http://127.0.0.1:9", timeout_s=1.0) as client:
            requests = [chat("a", 60.0), chat("b", 120.0)]
            prepared = [PreparedRequest(CHAT, b"{}", 1, 1)] * 2
            replay = ReplayRun(requests, prepared, client, OpenLoop(requests, speedup=1.0, origin_s=0.0))
            replay.stop(End("stop_rule", "enough"))
            await replay.execute()
        return replay

    replay = asyncio.run(run())
    assert replay.end == End("stop_rule", "enough")
    assert replay.records == []
