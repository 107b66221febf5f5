"""Who sends what: every request once, sessions and call graphs whole, every client about as much to do."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workload_cases import chat, workload

from workloads.replay.num_clients import busiest_rates, num_clients
from workloads.replay.shares import share_out, split_slots
from workloads.request import Request


@st.composite
def recordings(draw: st.DrawFn) -> list[Request]:
    """Requests of few sessions or none, some of which wait for earlier ones of any session."""
    found: list[Request] = []
    for row in range(draw(st.integers(0, 30))):
        session = draw(st.none() | st.sampled_from("abcde"))
        parents = (
            draw(st.lists(st.integers(0, row - 1), max_size=2, unique=True)) if row and draw(st.booleans()) else []
        )
        names = tuple(str(parent) for parent in parents)
        arrival_s = draw(st.none() | st.floats(0, 100))
        found.append(chat(str(row), arrival_s, session_id=session, parent_ids=names, output_tokens=1 + row % 5))
    return found


@given(recordings(), st.integers(1, 6))
def test_every_request_has_one_client_and_keeps_its_session_and_parents(requests: list[Request], count: int) -> None:
    shares = share_out(requests, count)
    assert sorted(row for share in shares for row in share) == list(range(len(requests)))
    assert all(share == sorted(share) for share in shares)
    assert 1 <= len(shares) <= count
    assert all(shares) or not requests
    client = {requests[row].request_id: number for number, share in enumerate(shares) for row in share}
    sessions: dict[str, int] = {}
    for request in requests:
        mine = client[request.request_id]
        assert all(client[parent] == mine for parent in request.parent_ids)
        if request.session_id is not None:
            assert sessions.setdefault(request.session_id, mine) == mine


def test_every_client_has_its_part_of_every_stretch() -> None:
    requests = [chat(str(i), float(i)) for i in range(100)]
    for share in share_out(requests, 4):
        assert len(share) == 25
        assert max(after - before for before, after in itertools.pairwise(share)) <= 8


def test_slots_are_split_as_evenly_as_they_divide() -> None:
    assert split_slots(10, 4) == [3, 3, 2, 2]


def test_the_busiest_ten_seconds_count() -> None:
    # 50 requests of 3 tokens in second 0 to 5, 200 from second 30 on, 40 a second
    arrivals = [i / 10 for i in range(50)] + [30 + i / 40 for i in range(200)]
    recording = workload(*(chat(str(i), arrival) for i, arrival in enumerate(arrivals)))
    assert busiest_rates(recording) == pytest.approx((20.0, 60.0))
    assert busiest_rates(recording, speedup=3.0)[0] == pytest.approx(20.0)  # still 200 in a window of 10 s
    assert busiest_rates(workload(chat("a", None))) == (0.0, 0.0)


def test_clients_follow_the_rate_and_the_cores() -> None:
    # 1200 requests in a second, each of 3 tokens: 2.4 times what a client is given
    recording = workload(*(chat(str(i), i / 1200) for i in range(1200)))
    assert num_clients(recording, num_cores=64) == 3
    assert num_clients(recording, num_cores=8) == 2
    assert num_clients(recording, num_cores=2) == 1
    assert num_clients(recording, num_cores=64, speedup=0.1) == 1
    # 100 requests in a second, each of 400 tokens: 40,000 tokens/s are five clients' work
    long = workload(*(chat(str(i), i / 100, output_tokens=400) for i in range(101)))
    assert num_clients(long, num_cores=64) == 6
    assert num_clients(recording, num_cores=64, mode="concurrency", concurrency=600) == 3
