"""When requests go out: open loop, sessions, a fixed number in flight, stalls charged."""

from __future__ import annotations

import pytest
from mock_server import MockServer
from replay_cases import replay, statuses
from workload_cases import chat, metadata, workload

from workloads.errors import WorkloadError
from workloads.metrics import summarize
from workloads.workload import Workload


def test_requests_go_out_at_their_recorded_arrivals(server: MockServer) -> None:
    arrivals = [0.0, 0.05, 0.05, 0.2]
    result = replay(server, workload(*(chat(str(i), 5.0 + a) for i, a in enumerate(arrivals))))
    assert [r.intended_start_s for r in result.records] == pytest.approx(arrivals, abs=1e-6)
    assert all(0 <= r.sent_s - r.intended_start_s < 0.5 for r in result.records)
    assert statuses(result.records) == ["ok"] * 4
    assert result.ended_by == "completion"
    assert result.num_unsent == 0


def test_arrivals_in_whole_seconds_do_not_all_start_together(server: MockServer) -> None:
    seconds = workload(*(chat(str(i), 0.0) for i in range(20)), time_resolution_s=1.0)
    result = replay(server, seconds, speedup=10)
    starts = [record.intended_start_s for record in result.records]
    assert len(set(starts)) == 20
    assert max(starts) < 0.1
    assert any("steps of 1 s" in note for note in result.notes)


def test_speedup_divides_arrivals(server: MockServer) -> None:
    result = replay(server, workload(chat("a", 0.0), chat("b", 1.0)), speedup=10)
    assert result.records[1].intended_start_s == pytest.approx(0.1)


def test_a_stalled_server_is_charged_to_every_request_intended_in_the_stall(server: MockServer) -> None:
    server.behaviour.fault = lambda _: "stall" if len(server.bodies) == 5 else None
    result = replay(server, workload(*(chat(str(i), 0.01 * i) for i in range(200))))
    begin, end = (moment - result.zero_monotonic_s for moment in server.stalled)
    caught = [r for r in result.records if begin <= r.intended_start_s < end]
    assert len(caught) >= 9  # one is due every 10 ms, and the stall lasts 100
    for record in caught:
        assert record.first_token_s is not None
        # Nothing answers before the stall ends, so a request intended in it waits at least for the rest of it.
        assert record.first_token_s - record.intended_start_s >= end - record.intended_start_s


@pytest.mark.parametrize("clients", [1, 2])
def test_requests_due_while_nobody_is_answered_are_sent_and_charged_from_their_arrival(
    server: MockServer, clients: int
) -> None:
    server.behaviour.answers_from = 30
    result = replay(server, workload(*(chat(str(i), 0.01 * i) for i in range(30))), clients=clients)
    assert statuses(result.records) == ["ok"] * 30
    for i, record in enumerate(result.records):
        assert record.first_token_s is not None
        # Nobody is answered before the last request has come, which is not before it is due, 0.29 s after the start.
        assert record.first_token_s - record.intended_start_s >= 0.29 - 0.01 * i - 1e-6


def test_later_turns_wait_for_their_parents_and_think(server: MockServer) -> None:
    server.behaviour.first_token_s = 0.05
    first = chat("a", 0.0, session_id="s", turn=0)
    second = chat("b", 0.01, session_id="s", turn=1, parent_ids=("a",), think_s=0.1)
    result = replay(server, workload(first, second))
    a, b = result.records
    assert b.intended_start_s == pytest.approx(a.end_s + 0.1, abs=1e-6)
    assert b.sent_s >= b.intended_start_s
    assert "replayed in mode sessions" in result.notes


def test_fan_in_waits_for_the_slowest_parent(server: MockServer) -> None:
    server.behaviour.gap_s = 0.02
    quick, slow = chat("a", 0.0, session_id="s", output_tokens=1), chat("b", 0.0, session_id="s", output_tokens=5)
    join = chat("c", 0.0, session_id="s", parent_ids=("a", "b"), think_s=0.0)
    records = {r.request_id: r for r in replay(server, workload(quick, slow, join)).records}
    assert records["c"].intended_start_s == pytest.approx(records["b"].end_s, abs=1e-6)


def test_a_recorded_gap_stands_in_for_a_missing_think_time(server: MockServer) -> None:
    first = chat("a", 0.0, session_id="s", e2el_s=0.5)
    second = chat("b", 0.6, session_id="s", parent_ids=("a",))
    a, b = replay(server, workload(first, second)).records
    assert b.intended_start_s == pytest.approx(a.end_s + 0.1, abs=1e-6)


def test_open_loop_ignores_parents(server: MockServer) -> None:
    server.behaviour.first_token_s = 0.1
    first = chat("a", 0.0, session_id="s")
    second = chat("b", 0.02, session_id="s", parent_ids=("a",), think_s=1.0)
    result = replay(server, workload(first, second), mode="open_loop")
    assert result.records[1].intended_start_s == pytest.approx(0.02)


def test_concurrency_keeps_that_many_in_flight_and_sessions_in_order(server: MockServer) -> None:
    server.behaviour.first_token_s = 0.03
    requests = [chat(str(i), None) for i in range(6)]
    requests += [chat("x", None, session_id="s"), chat("y", None, session_id="s", parent_ids=("x",))]
    result = replay(server, workload(*requests), mode="concurrency", concurrency=3)
    assert summarize(result.records).max_concurrent_requests == 3
    records = {r.request_id: r for r in result.records}
    assert records["y"].sent_s >= records["x"].end_s
    assert statuses(result.records) == ["ok"] * 8


def test_a_workload_without_arrivals_cannot_drive_open_loop(server: MockServer) -> None:
    with pytest.raises(WorkloadError, match="cannot drive open_loop"):
        replay(server, workload(chat("a", None)))


def test_warm_up_requests_are_sent_first_and_not_recorded(server: MockServer) -> None:
    order: list[int] = []
    warmup = workload(chat("w", 0.0, output_tokens=2), chat("v", 9.0, output_tokens=2))
    result = replay(
        server, workload(chat("a", 0.0)), warmup=warmup, after_warmup=lambda: order.append(len(server.bodies))
    )
    assert order == [2]
    assert [r.request_id for r in result.records] == ["a"]
    assert [body["max_tokens"] for body in server.bodies] == [2, 2, 3]


def test_an_empty_workload_replays_to_nothing(server: MockServer) -> None:
    result = replay(server, Workload.from_requests([], metadata()), mode="concurrency", concurrency=1)
    assert result.records == ()
