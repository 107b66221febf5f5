"""Requests that fail, time out, are retried, or find their connection closed."""

from __future__ import annotations

import pytest
from mock_server import MockServer
from replay_cases import replay, statuses
from workload_cases import chat, workload

from workloads.replay.replayer import Replayer


@pytest.mark.parametrize(
    ("fault", "words"),
    [("500", "engine exploded"), ("cut_stream", ""), ("error_event", "out of memory")],
)
def test_a_failed_request_is_a_record(server: MockServer, fault: str, words: str) -> None:
    server.behaviour.fault = lambda body: fault if body["max_tokens"] == 5 else None
    result = replay(server, workload(chat("a", 0.0, output_tokens=5), chat("b", 0.05)))
    assert statuses(result.records) == ["error", "ok"]
    error = result.records[0].error
    assert error is not None
    assert words in error


def test_a_slow_request_times_out(server: MockServer) -> None:
    server.behaviour.fault = lambda body: "hang" if body["max_tokens"] == 5 else None
    what = workload(chat("a", 0.0, output_tokens=5), chat("b", 0.0))
    result = Replayer(base_url=server.base_url, model="mock", timeout_s=1.0).replay(what)
    assert {r.request_id: r.status for r in result.records} == {"a": "timeout", "b": "ok"}


def test_an_absent_server_gives_error_records() -> None:
    result = Replayer(base_url="http://127.0.0.1:9", model="mock").replay(workload(chat("a", 0.0)))
    assert statuses(result.records) == ["error"]


def test_a_dropped_kept_connection_is_tried_once_more(server: MockServer) -> None:
    faults = iter([None, "drop", None])
    server.behaviour.fault = lambda _: next(faults)
    result = replay(server, workload(chat("a", 0.0), chat("b", 0.1)))
    assert statuses(result.records) == ["ok", "ok"]
    assert any("sent again" in note for note in result.notes)


def test_connections_are_reused(server: MockServer) -> None:
    replay(server, workload(*(chat(str(i), 0.0) for i in range(10))), mode="concurrency", concurrency=1)
    assert len(server.connections) == 1


def test_nothing_is_sent_again_unasked(server: MockServer) -> None:
    server.behaviour.fault = lambda _: "500"
    result = replay(server, workload(chat("a", 0.0), chat("b", 0.0)))
    assert statuses(result.records) == ["error", "error"]
    assert len(server.bodies) == 2
    assert result.num_retries == 0


def test_retries_are_counted_in_the_result_and_the_clock_runs_on(server: MockServer) -> None:
    faults = iter(["500", None, None])
    server.behaviour.fault = lambda _: next(faults)
    result = replay(server, workload(chat("a", 0.0), chat("b", 0.0)), max_retries=1)
    assert statuses(result.records) == ["ok", "ok"]
    assert result.num_retries == 1
    assert any("1 retries" in note for note in result.notes)
    waited = max((record.first_token_s or 0.0) - record.intended_start_s for record in result.records)
    assert waited >= 0.5  # the pause before a first retry
