"""Who is admitted while a step has no place for the adapter of the first in line: nobody starves, places are used."""

from itertools import count

import pytest
from scheduling_cases import make_scheduler, sequence, step

from engine.bundled.scheduler import Scheduler
from engine.bundled.sequence import Sequence

NUM_OUTPUT_TOKENS = 4


def serve(scheduler: Scheduler, *, arriving: Sequence | None = None) -> None:
    """One step; who has its tokens leaves."""
    if arriving is not None:
        scheduler.add(arriving)
    step(scheduler)
    for one in [one for one in scheduler.running if one.num_output_tokens == NUM_OUTPUT_TOKENS]:
        scheduler.finish(one)


def test_the_base_model_and_adapters_in_the_batch_overtake_who_waits_for_a_place() -> None:
    scheduler = make_scheduler(max_num_seqs=4, max_loras=1)
    adapters = (0, 1, 2, -1, 0, 1, -1)
    arrived = [sequence(2, 100 * number, adapter=adapter) for number, adapter in enumerate(adapters)]
    for one in arrived:
        scheduler.add(one)
    step(scheduler)
    assert [arrived.index(one) for one in scheduler.running] == [0, 3, 4, 6]
    assert scheduler.waiting.first() is arrived[1]


@pytest.mark.parametrize("others", [0, -1], ids=["of an adapter", "of the base model"])
def test_an_endless_load_does_not_starve_another_adapter(others: int) -> None:
    scheduler = make_scheduler(num_blocks=640, max_num_seqs=4, max_loras=1)
    first, late = sequence(2, adapter=0), sequence(2, 50, adapter=1)
    scheduler.add(first)
    serve(scheduler)
    scheduler.add(late)
    for number in count(1):
        serve(scheduler, arriving=sequence(2, 100 * number, adapter=others))
        if late.num_output_tokens:
            break
        assert number < 20, "starved"


def test_alternating_adapters_share_steps_though_one_place_holds_one_of_them() -> None:
    scheduler = make_scheduler(num_blocks=640, max_num_seqs=8, max_loras=1, max_num_batched_tokens=64)
    for number in range(64):
        scheduler.add(sequence(2, 100 * number, adapter=number % 2))
    num_steps = 0
    while scheduler.has_unfinished():
        serve(scheduler)
        num_steps += 1
    assert num_steps <= 2 * 64 / 8 * NUM_OUTPUT_TOKENS  # half of the places at least; one by one it would be 256
