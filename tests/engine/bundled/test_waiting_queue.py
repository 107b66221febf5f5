"""Who is admitted next: order by policy, preemption, and what fairness promises."""

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduling_cases import make_scheduler, sequence, step

from engine.bundled.scheduler import Scheduler
from engine.bundled.sequence import Sequence, Standing
from engine.bundled.waiting_queue import OUTPUT_TOKEN_WEIGHT, PROMPT_TOKEN_WEIGHT, make_waiting_queue
from engine.config import SchedulingPolicy

POLICIES = get_args(SchedulingPolicy)
STANDINGS = st.builds(Standing, priority=st.integers(-2, 2), client=st.sampled_from(["ann", "bob", ""]))


def drained(scheduler: Scheduler, length: int) -> list[Sequence]:
    """Runs to the end, each sequence for `length` tokens; the sequences in the order in which they ended."""
    ended: list[Sequence] = []
    for _ in range(2000):
        step(scheduler)
        for one in [one for one in scheduler.running if one.num_output_tokens >= length]:
            scheduler.finish(one)
            ended.append(one)
        scheduler.block_manager.check_integrity(scheduler.running)
        if not scheduler.has_unfinished():
            return ended
    raise AssertionError("starved")


def test_the_smallest_priority_is_admitted_first_and_preempted_last() -> None:
    scheduler = make_scheduler(num_blocks=4, scheduling_policy="priority", max_num_seqs=2)
    low, high, middle = (
        sequence(7, 100 * i, standing=Standing(priority=priority)) for i, priority in enumerate((5, -1, 0))
    )
    for one in (low, high, middle):
        scheduler.add(one)
    assert step(scheduler) == [(7, 0), (7, 0)]
    assert scheduler.running == [high, middle]
    step(scheduler)  # both fill their second block
    step(scheduler)
    assert scheduler.running == [high]
    assert [scheduler.waiting.first(), len(scheduler.waiting)] == [middle, 2]


@pytest.mark.parametrize("policy", POLICIES)
@given(
    standings=st.lists(STANDINGS, min_size=1, max_size=10),
    lengths=st.lists(st.integers(1, 40), min_size=10, max_size=10),
    num_blocks=st.integers(16, 30),
)
@settings(max_examples=30)
def test_nobody_starves_under_any_policy(
    policy: SchedulingPolicy, standings: list[Standing], lengths: list[int], num_blocks: int
) -> None:
    scheduler = make_scheduler(num_blocks, scheduling_policy=policy, max_num_batched_tokens=40)
    sequences = [
        sequence(length, 100 * i, max_tokens=10, standing=standing)
        for i, (standing, length) in enumerate(zip(standings, lengths, strict=False))
    ]
    for one in sequences:
        scheduler.add(one)
    assert {id(one) for one in drained(scheduler, 10)} == {id(one) for one in sequences}


def test_one_client_cannot_crowd_out_another() -> None:
    scheduler = make_scheduler(num_blocks=512, scheduling_policy="fair", max_num_seqs=2)
    flood = [sequence(8, 100 * i, standing=Standing(client="loud")) for i in range(20)]
    for one in flood:
        scheduler.add(one)
    for _ in range(3):
        step(scheduler)
    quiet = sequence(8, 9000, standing=Standing(client="quiet"))
    scheduler.add(quiet)
    ended = drained(scheduler, 8)
    assert ended.index(quiet) <= 4  # after the two that ran, one of equal account, and one that ended beside it


@given(
    loads=st.lists(st.tuples(st.sampled_from(["ann", "bob"]), st.integers(1, 16)), min_size=60, max_size=120),
)
@settings(max_examples=30)
def test_two_clients_that_always_wait_receive_the_same_service_within_a_bound(loads: list[tuple[str, int]]) -> None:
    """Theorem 4.4 of the paper: at most twice the larger of one prompt's weight and one batch's output tokens."""
    max_num_seqs, output = 4, 6
    scheduler = make_scheduler(num_blocks=512, scheduling_policy="fair", max_num_seqs=max_num_seqs)
    received = {"ann": 0.0, "bob": 0.0}
    for i, (client, length) in enumerate(loads):
        scheduler.add(sequence(length, 1000 * i, max_tokens=output, standing=Standing(client=client)))
    bound = 2 * max(PROMPT_TOKEN_WEIGHT * 16, OUTPUT_TOKEN_WEIGHT * max_num_seqs * output)
    while {one.standing.client for one in scheduler.waiting} == {"ann", "bob"}:
        for item in scheduler.schedule():
            drawn = [7] if item.draws else []
            weight = PROMPT_TOKEN_WEIGHT * item.num_prompt_tokens + OUTPUT_TOKEN_WEIGHT * len(drawn)
            received[item.sequence.standing.client] += weight
            scheduler.advance(item, drawn)
        for one in [one for one in scheduler.running if one.num_output_tokens >= output]:
            scheduler.finish(one)
        assert abs(received["ann"] - received["bob"]) <= bound


def test_absence_saves_up_no_service() -> None:
    queue = make_waiting_queue("fair")
    ann, bob = sequence(4, standing=Standing(client="ann")), sequence(4, 100, standing=Standing(client="bob"))
    bob.arrival = 1
    queue.add(ann)
    for _ in range(3):
        queue.served(ann, num_prompt_tokens=1000, num_output_tokens=0)
    queue.add(bob)  # lifted to what ann has: the earlier arrival goes first
    assert queue.first() is ann


def test_accounts_end_when_nobody_waits() -> None:
    queue = make_waiting_queue("fair")
    for i in range(100):
        one = sequence(4, 100 * i, standing=Standing(client=f"client {i}"))
        queue.add(one)
        queue.remove(one)
        queue.served(one, num_prompt_tokens=4, num_output_tokens=0)
    assert len(queue._service) <= 2  # type: ignore[attr-defined]
