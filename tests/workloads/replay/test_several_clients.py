"""One replay by several client processes: the same requests at the same times, one stream of records, no orphan."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from mock_server import MockServer
from replay_cases import replay, statuses
from workload_cases import chat, workload

from workloads.metadata import PrefixHashing
from workloads.metrics import summarize
from workloads.records import RequestRecord
from workloads.request import Request
from workloads.stopping.limit import PercentileLimit
from workloads.stopping.stop_rule import InFlight
from workloads.stopping.violated import Violated
from workloads.workload import Workload


def traffic() -> Workload:
    """Sessions whose turns follow each other, requests alone, and hashed prefixes that they share."""
    requests = []
    for i in range(6):
        first = Request(request_id=f"{i}a", arrival_s=0.05 * i, session_id=str(i), **_lengths(i))
        requests += [first, Request(request_id=f"{i}b", session_id=str(i), **_turn(f"{i}a", 0.05 * i + 0.01, i))]
    requests += [Request(request_id=f"x{i}", arrival_s=0.03 * i, **_lengths(20 + i)) for i in range(8)]
    prefix = PrefixHashing(block_size=4, tail_hashed=True)
    return workload(*requests, prefix=prefix, vocab_size=1000)


def _lengths(i: int) -> dict[str, Any]:
    return {"input_tokens": 5 + i % 3, "output_tokens": 2 + i % 3, "prefix_hashes": (1, 100 + i)}


def _turn(parent: str, arrival_s: float, i: int) -> dict[str, Any]:
    return {"arrival_s": arrival_s, "parent_ids": (parent,), "think_s": 0.05} | _lengths(40 + i)


@pytest.mark.parametrize("mode", ["open_loop", "sessions"])
def test_two_clients_send_what_one_sends_at_the_same_times(server: MockServer, mode: str) -> None:
    sent, starts = [], []
    for clients in (1, 2):
        server.bodies.clear()
        result = replay(server, traffic(), mode=mode, clients=clients, keep_text=True)
        assert statuses(result.records) == ["ok"] * 20
        assert [r.intended_start_s for r in result.records] == sorted(r.intended_start_s for r in result.records)
        assert result.responses.keys() == {r.request_id for r in result.records}
        assert ("sent by 2 client processes" in result.notes) == (clients == 2)
        sent.append(sorted(json.dumps(body, sort_keys=True) for body in server.bodies))
        ends = {r.request_id: r.end_s for r in result.records}
        # a later turn is due when its parent has ended, which is not the same from replay to replay
        starts.append(
            {
                r.request_id: round(r.intended_start_s - (ends[r.request_id[:-1] + "a"] if _follows(r, mode) else 0), 6)
                for r in result.records
            }
        )
    assert sent[0] == sent[1]
    assert starts[0] == starts[1]


def _follows(record: RequestRecord, mode: str) -> bool:
    return mode == "sessions" and record.request_id.endswith("b")


def test_a_number_in_flight_is_divided_among_the_clients(server: MockServer) -> None:
    server.behaviour.first_token_s = 0.1
    requests = [chat(str(i), None) for i in range(12)]
    result = replay(server, workload(*requests), mode="concurrency", concurrency=3, clients=2)
    assert statuses(result.records) == ["ok"] * 12
    assert summarize(result.records).max_concurrent_requests == 3


def test_no_more_clients_are_started_than_there_are_sessions_or_slots(server: MockServer) -> None:
    one = workload(chat("a", 0.0, session_id="s"), chat("b", 0.1, session_id="s"))
    assert not any("client processes" in note for note in replay(server, one, clients=4).notes)
    several = workload(*(chat(str(i), 0.0) for i in range(4)))
    result = replay(server, several, clients=4, mode="concurrency", concurrency=2)
    assert "sent by 2 client processes" in result.notes


def test_every_record_is_told_once_and_losses_are_added_up(server: MockServer) -> None:
    told: list[str] = []
    requests = [chat(str(i), 0.02 * i, adapter="lora") for i in range(10)]
    result = replay(server, workload(*requests), clients=2, on_record=lambda record: told.append(record.request_id))
    assert sorted(told) == sorted(r.request_id for r in result.records)
    assert "10 requests for adapters the server does not have, sent to the base model" in result.notes


def test_retries_of_all_clients_are_counted(server: MockServer) -> None:
    faults = iter(["500", "500", None, None])
    server.behaviour.fault = lambda _: next(faults)
    result = replay(server, workload(chat("a", 0.0), chat("b", 0.0)), max_retries=2, clients=2)
    assert statuses(result.records) == ["ok", "ok"]
    assert result.num_retries == 2
    assert any(note.startswith("2 retries") for note in result.notes)


def test_a_stop_rule_sees_the_records_of_all_clients(server: MockServer) -> None:
    server.behaviour.fault = lambda _: "hang"
    limits = {"ttft": PercentileLimit(metric="ttft", percentile=50, limit_s=0.1)}
    rule = Violated(limits, num_requests=6, clustering={})
    requests = [chat(str(i), 0.01 * i) for i in range(5)]
    result = replay(server, workload(*requests, chat("late", 30.0)), stop_rule=rule, clients=2)
    assert result.ended_by == "stop_rule"
    assert result.stop_reason is not None
    assert "of 6 requests have TTFT above 100 ms" in result.stop_reason  # neither client has the four that it takes
    assert statuses(result.records) == ["cut"] * 5
    assert result.num_unsent == 1


def test_a_rule_is_never_told_of_a_start_before_one_it_was_told_of_as_decided(server: MockServer) -> None:
    class Watching:
        """Every look is of all that began before it."""

        def __init__(self) -> None:
            self.seen: set[str] = set()
            self.late: list[str] = []
            self.latest_s = 0.0

        def look(self, now_s: float, ended: Sequence[RequestRecord], in_flight: Sequence[InFlight]) -> None:
            told = {r.request_id: r.intended_start_s for r in (*ended, *in_flight)}
            new = {name: start for name, start in told.items() if name not in self.seen}
            self.late += [name for name, start in new.items() if start < self.latest_s]
            self.seen |= new.keys()
            self.latest_s = now_s

    server.behaviour.first_token_s = 0.05
    rule = Watching()
    requests = [chat(str(i), 0.01 * i, session_id=str(i)) for i in range(80)]
    requests += [chat(f"{i}+", None, session_id=str(i), parent_ids=(str(i),), think_s=0.3) for i in range(0, 20, 2)]
    replay(server, workload(*requests), stop_rule=rule, clients=2, mode="sessions")
    assert rule.late == []
    assert len(rule.seen) > 40


def test_the_limit_ends_every_client(server: MockServer) -> None:
    requests = [chat("a", 0.0), chat("b", 0.0), chat("c", 60.0), chat("d", 60.0)]
    result = replay(server, workload(*requests), limit_s=0.5, clients=2)
    assert (result.ended_by, result.num_unsent) == ("limit", 2)


def test_a_silent_server_ends_every_client(server: MockServer) -> None:
    server.behaviour.fault = lambda _: "hang"
    requests = [chat("a", 0.0), chat("b", 0.0), chat("c", 60.0), chat("d", 60.0)]
    result = replay(server, workload(*requests), stall_s=0.3, clients=2)
    assert result.ended_by == "stall"
    assert statuses(result.records) == ["timeout", "timeout"]


def test_what_ends_one_client_finds_others_at_their_end(server: MockServer) -> None:
    server.behaviour.fault = lambda body: "hang" if body["max_tokens"] == 5 else None
    what = workload(chat("a", 0.0), chat("b", 0.0, output_tokens=5), chat("c", 0.1))
    result = replay(server, what, stall_s=0.5, clients=2)
    assert result.ended_by == "stall"
    assert {r.request_id: r.status for r in result.records} == {"a": "ok", "b": "timeout", "c": "ok"}


def test_one_late_client_voids_the_replay(server: MockServer, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[set[str]] = []

    def late(records: Sequence[RequestRecord], _: object) -> str | None:
        looked.append({record.request_id for record in records})
        return "the load generator was late" if len(looked) == 2 else None

    monkeypatch.setattr("workloads.replay.outcome.void_reason", late)
    result = replay(server, workload(*(chat(str(i), 0.0) for i in range(4))), clients=2)
    assert result.void_reason == "client process 2 of 2: the load generator was late"
    assert len(looked[0]) == len(looked[1]) == 2
    assert not looked[0] & looked[1]
