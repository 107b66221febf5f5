"""Scheduling policy on paper: budgets, order, drafts and preemption, without a model."""

from hypothesis import given, settings
from hypothesis import strategies as st
from scheduling_cases import make_scheduler, sequence, step


def test_a_long_prompt_runs_in_chunks_beside_a_decode() -> None:
    scheduler = make_scheduler()
    scheduler.add(sequence(3))
    assert step(scheduler) == [(3, 0)]
    scheduler.add(sequence(40, 100))
    assert [step(scheduler) for _ in range(4)] == [
        [(1, 0), (15, 0)],
        [(1, 0), (15, 0)],
        [(1, 0), (10, 0)],
        [(1, 0), (1, 0)],
    ]


def test_blocks_are_shared_once_the_drafts_keys_and_values_are_written_too() -> None:
    scheduler, prompt = make_scheduler(shares_draft_cache=True), sequence(12)
    scheduler.add(prompt)
    [item] = scheduler.schedule()
    prompt.num_draft_computed_tokens = 5  # the draft lags behind the 12 that the target computes
    scheduler.advance(item, [7])
    assert prompt.num_computed_tokens == 12
    assert prompt.num_registered_blocks == 1


def test_without_chunked_prefill_a_prompt_waits_for_room() -> None:
    scheduler = make_scheduler(enable_chunked_prefill=False)
    scheduler.add(sequence(10))
    scheduler.add(sequence(10, 100))
    assert step(scheduler) == [(10, 0)]
    assert step(scheduler) == [(1, 0), (10, 0)]


def test_drafts_take_their_share_of_the_budget() -> None:
    scheduler = make_scheduler(speculative_config={"method": "ngram", "num_speculative_tokens": 5})
    for first in (0, 100, 200):
        scheduler.add(sequence(4, first))
    assert step(scheduler) == [(4, 0)] * 3
    assert step(scheduler) == [(1, 5), (1, 5), (1, 3)]


def test_drafts_leave_a_token_to_those_behind() -> None:
    scheduler = make_scheduler(speculative_config={"method": "ngram", "num_speculative_tokens": 15})
    for first in (0, 100, 200, 300):
        scheduler.add(sequence(4, first))
    assert step(scheduler) == [(4, 0)] * 4
    assert step(scheduler) == [(1, 12), (1, 0), (1, 0), (1, 0)]


def test_drafts_never_outrun_the_request_or_the_context() -> None:
    scheduler = make_scheduler(speculative_config={"method": "ngram", "num_speculative_tokens": 5})
    scheduler.add(sequence(4, max_tokens=4))
    assert step(scheduler) == [(4, 0)]
    assert step(scheduler, num_accepted=1) == [(1, 2)]  # three tokens to go: two drafts and the bonus
    assert step(scheduler) == [(1, 0)]
    scheduler = make_scheduler(
        speculative_config={"method": "ngram", "num_speculative_tokens": 5}, max_num_batched_tokens=64
    )
    scheduler.add(sequence(60))
    assert step(scheduler) == [(60, 0)]
    assert step(scheduler) == [(1, 2)]  # 61 known, 64 at most: two drafts and the bonus


def test_the_newest_is_preempted_and_comes_back_first() -> None:
    scheduler = make_scheduler(num_blocks=4)
    old, new, waiting = sequence(7), sequence(7, 100), sequence(7, 200)
    for one in (old, new, waiting):
        scheduler.add(one)
    assert step(scheduler) == [(7, 0), (7, 0)]
    assert step(scheduler) == [(1, 0), (1, 0)]
    assert step(scheduler) == [(1, 0)]
    assert list(scheduler.waiting) == [new, waiting]
    assert (new.num_computed_tokens, new.block_table) == (0, [])


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    num_blocks=st.integers(16, 40),
    num_drafts=st.integers(0, 4),
    num_accepted=st.integers(0, 4),
    chunked=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_every_request_finishes_and_no_step_exceeds_its_limits(
    lengths: list[int], num_blocks: int, num_drafts: int, num_accepted: int, chunked: bool
) -> None:
    speculation = {"method": "ngram", "num_speculative_tokens": num_drafts} if num_drafts else None
    scheduler = make_scheduler(
        num_blocks, speculative_config=speculation, enable_chunked_prefill=chunked, max_num_batched_tokens=40
    )
    sequences = [sequence(length, 100 * i, max_tokens=20) for i, length in enumerate(lengths)]
    for one in sequences:
        scheduler.add(one)
    for _ in range(2000):
        taken = step(scheduler, num_accepted)
        assert sum(map(sum, taken)) <= 40
        assert len(taken) <= len(scheduler.running) <= 4
        for one in [one for one in scheduler.running if one.num_output_tokens >= 20]:
            scheduler.finish(one)
        scheduler.block_manager.check_integrity(scheduler.running)
        if not scheduler.has_unfinished():
            break
    assert not scheduler.has_unfinished()
    assert all(one.num_output_tokens == 20 for one in sequences)
