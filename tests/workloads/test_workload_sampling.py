"""Splits and windows keep sessions whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workload_cases import chat, workload

from workloads.errors import WorkloadError
from workloads.request import Request
from workloads.sampling import session_numbers, session_starts, split_by_session, window, window_at
from workloads.workload import Workload


def traffic(num_sessions: int = 20, turns: int = 3) -> Workload:
    """Session i starts at 10 i s; its turns come 7 s apart, so neighbouring sessions interleave."""
    return workload(*(_turn(i, t) for i in range(num_sessions) for t in range(turns)), start_time="2026-01-01T00:00:00")


def _turn(session: int, turn: int) -> Request:
    parents = (f"{session}.{turn - 1}",) if turn else ()
    name = f"s{session}"
    return chat(f"{session}.{turn}", 10.0 * session + 7.0 * turn, session_id=name, turn=turn, parent_ids=parents)


def ids(part: Workload) -> set[str]:
    return {request.request_id for request in part}


def test_sessions_are_numbered_by_first_arrival_and_strays_are_their_own() -> None:
    w = workload(chat("a", 0, session_id="z"), chat("b", 1), chat("c", 2, session_id="a"), chat("d", 3, session_id="z"))
    assert session_numbers(w).tolist() == [0, 1, 2, 0]
    assert session_starts(w).tolist() == [0, 1, 2]


def test_the_later_sessions_are_held_out_whole() -> None:
    split = split_by_session(traffic(), 0.35)
    assert {r.session_id for r in split.heldout} == {f"s{i}" for i in range(13, 20)}
    assert len(split.train) == 13 * 3
    assert ids(split.train).isdisjoint(ids(split.heldout))
    assert split.heldout.numbers("arrival_s")[0] == 0
    assert split.heldout.metadata.losses == ("only the last 7 of 20 sessions were kept",)
    assert split.heldout.metadata.start_time == "2026-01-01T00:02:10"


def test_one_session_cannot_be_split() -> None:
    with pytest.raises(WorkloadError, match="cannot be split in two"):
        split_by_session(traffic(num_sessions=1), 0.5)


def test_a_window_holds_every_turn_of_the_sessions_that_start_in_it() -> None:
    part = window_at(traffic(), start_s=30, seconds=20)
    assert {r.session_id for r in part} == {"s3", "s4"}
    assert len(part) == 6
    assert part.numbers("arrival_s").tolist() == [0, 7, 10, 14, 17, 24]


def test_a_window_where_nothing_starts_says_so() -> None:
    with pytest.raises(WorkloadError, match="longer window"):
        window_at(traffic(), start_s=31, seconds=2)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(0, 1000))
def test_a_window_of_requests_is_whole_consecutive_sessions(num_requests: int, seed: int) -> None:
    part = window(traffic(), num_requests=num_requests, seed=seed)
    sessions = sorted({int(r.session_id[1:]) for r in part if r.session_id})
    assert len(part) == 3 * len(sessions)
    assert sessions == list(range(sessions[0], sessions[0] + len(sessions)))
    assert min(num_requests, 60) <= len(part) < num_requests + 3 or len(part) == 60


def test_a_window_longer_than_the_workload_is_the_workload() -> None:
    whole = traffic()
    assert window(whole, seconds=1e6).fingerprint == whole.fingerprint


def test_the_seed_chooses_the_window() -> None:
    starts = {next(iter(window(traffic(), seconds=15, seed=seed))).session_id for seed in range(20)}
    assert len(starts) > 5
    assert window(traffic(), seconds=15, seed=4).fingerprint == window(traffic(), seconds=15, seed=4).fingerprint


def test_a_window_needs_one_length() -> None:
    with pytest.raises(WorkloadError, match="one of them"):
        window(traffic())


def test_sessions_without_arrivals_can_be_cut_by_count_alone() -> None:
    w = workload(*(chat(str(i), None) for i in range(10)))
    assert len(window(w, num_requests=4)) == 4
    with pytest.raises(WorkloadError, match="num_requests"):
        window(w, seconds=3)


def test_a_window_claims_only_what_it_can_drive() -> None:
    w = workload(chat("a", 0.0, session_id="s"), chat("b", 1.0, session_id="s", parent_ids=("a",)), chat("c", 50.0))
    assert "closed_loop" in w.capabilities
    assert "closed_loop" not in window_at(w, start_s=40, seconds=20).capabilities
    assert np.isfinite(w.numbers("arrival_s")).all()
