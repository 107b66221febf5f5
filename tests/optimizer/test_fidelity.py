"""How much traffic a trial replays, and which."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traffic_cases import METADATA, chats, lengths_only, sessions

from optimizer.errors import OptimizerError
from optimizer.fidelity import choose_window, part_of, plan_fidelity
from workloads.request import Request
from workloads.workload import Workload


def test_five_minutes_leave_room_for_eight_trials_and_the_verification() -> None:
    plan = plan_fidelity(300)
    # launch and warm-up 4 s each; a new quality class about 9 s for half of the trials
    trials = 8 * (plan.window_s + plan.probe_s + 4) + 4 * 9
    verification = 4 * (plan.verification_s + 3) + 15
    assert trials + verification <= 300


def test_a_budget_in_trials_is_measured_like_five_minutes() -> None:
    assert plan_fidelity(None) == plan_fidelity(300)


@given(st.floats(1, 1e6))
def test_every_budget_gives_a_plan_that_can_be_measured(budget_s: float) -> None:
    plan = plan_fidelity(budget_s)
    assert 3 <= plan.window_s <= 120
    assert plan.quality_requests <= plan.quality_requests_max
    assert plan.probe_s >= 1


def test_the_window_starts_at_zero_and_holds_about_its_share_of_the_traffic() -> None:
    chosen = choose_window(chats(200, rate_rps=10.0), 5.0, num_warmup=4)
    assert 40 <= len(chosen.window) <= 60
    assert min(chosen.window.numbers("arrival_s")) == 0
    assert chosen.span_s == pytest.approx(5.0, abs=0.3)


def test_the_typical_window_is_chosen_and_not_the_quiet_end() -> None:
    busy = [Request(request_id=f"b{i}", arrival_s=i / 10, input_tokens=5, output_tokens=5) for i in range(400)]
    quiet = [Request(request_id=f"q{i}", arrival_s=40 + i, input_tokens=5, output_tokens=5) for i in range(10)]
    chosen = choose_window(Workload.from_requests([*busy, *quiet], METADATA), 5.0, num_warmup=0)
    assert len(chosen.window) >= 30


def test_every_trial_gets_the_same_window() -> None:
    workload = chats(200, rate_rps=10.0)
    first, second = (choose_window(workload, 5.0, num_warmup=4, seed=3) for _ in range(2))
    assert first.window.fingerprint == second.window.fingerprint


def test_warm_up_requests_are_not_of_the_window() -> None:
    chosen = choose_window(sessions(60), 5.0, num_warmup=6)
    ids = {request.request_id for request in chosen.window}
    assert len(chosen.warmup) == 6
    assert not ids & {request.request_id for request in chosen.warmup}


def test_a_workload_shorter_than_the_window_is_replayed_whole_and_says_so() -> None:
    chosen = choose_window(chats(10), 60.0, num_warmup=4)
    assert len(chosen.window) == 10
    assert any("whole workload" in note for note in chosen.notes)
    assert any("few for a tail latency" in note for note in chosen.notes)


def test_turns_that_would_stretch_the_replay_are_left_out_with_their_children() -> None:
    chosen = choose_window(sessions(20, num_turns=100), 2.0, num_warmup=0)
    assert chosen.span_s <= 2.5
    ids = {request.request_id for request in chosen.window}
    assert all(set(request.parent_ids) <= ids for request in chosen.window)


def test_a_request_without_its_parent_is_no_part() -> None:
    workload = sessions(1)
    kept = part_of(workload, [request for request in workload if request.turn != 1])
    assert [request.turn for request in kept] == [0]


def test_a_trace_of_lengths_has_windows_too() -> None:
    assert len(choose_window(lengths_only(80), 1.0, num_warmup=2).window) > 20


def test_a_workload_without_arrivals_is_refused_in_words() -> None:
    workload = Workload.from_requests([Request(request_id="a", prompt="x", output_tokens=2)], METADATA)
    with pytest.raises(OptimizerError, match="open_loop"):
        choose_window(workload, 5.0, num_warmup=0)


def test_quality_asks_no_more_than_slow_traffic_brings() -> None:
    assert plan_fidelity(300).quality_requests == 300
    assert plan_fidelity(300, requests_per_s=40).quality_requests == 300
    assert plan_fidelity(300, requests_per_s=2.5).quality_requests == 120
    assert plan_fidelity(300, requests_per_s=0.01).quality_requests == 60
