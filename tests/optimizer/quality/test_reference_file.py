"""The reference on disk, and how much of it a look compares."""

from pathlib import Path

import numpy as np
import pytest

from optimizer.quality.divergence import top_logprobs
from optimizer.quality.looks import Look, decides, is_futile, look_at, num_forced, plan_looks
from optimizer.quality.reference import Reference, ReferenceAnswer, load_reference, save_reference
from workloads.estimate import Estimate


def answer(name: str, *, score: float | None, forced: bool, width: int = 2) -> ReferenceAnswer:
    top = top_logprobs([{token: -float(token) for token in range(1, width + 1)}] * 3)
    return ReferenceAnswer(
        request_id=name, prompt_ids=(1, 2), response_ids=(3, 4, 5), score=score, top=top if forced else None
    )


REFERENCE = Reference(
    answers=(
        answer("a", score=1.0, forced=True),
        answer("b", score=None, forced=True, width=3),
        answer("c", score=0.5, forced=False),
    ),
    num_refused=2,
)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    save_reference(tmp_path / "reference.npz", REFERENCE)
    read = load_reference(tmp_path / "reference.npz")
    assert read is not None
    assert read.num_refused == 2
    for before, after in zip(REFERENCE.answers, read.answers, strict=True):
        assert (before.request_id, before.prompt_ids, before.response_ids, before.score) == (
            after.request_id,
            after.prompt_ids,
            after.response_ids,
            after.score,
        )
        assert (before.top is None) == (after.top is None)
    assert read.answers[1].top is not None
    np.testing.assert_array_equal(read.answers[1].top.token_ids, [[1, 2, 3]] * 3)


def test_a_reference_that_was_never_made_is_none(tmp_path: Path) -> None:
    assert load_reference(tmp_path / "reference.npz") is None


def test_a_look_counts_scored_and_forced_answers_apart() -> None:
    assert look_at(REFERENCE, 3, scale=1.0) == Look(num_scored=2, num_forced=2)
    assert look_at(REFERENCE, 2, scale=1.0) == Look(num_scored=1, num_forced=2)


def test_checks_that_the_reference_always_fails_are_not_compared() -> None:
    failing = Reference(answers=(answer("a", score=0.0, forced=True),))
    assert look_at(failing, 1, scale=1.0).num_scored == 0


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([(100, 50)] * 200, 80),  # 80 x 50 = 4000 response tokens
        ([(2000, 10)] * 200, 29),  # 29 x 2010 = 58,290 tokens in all; one more is over 60,000
        ([(90_000, 10)] * 3, 1),  # never none
    ],
)
def test_long_prompts_and_long_answers_bound_what_is_scored_token_by_token(
    lengths: list[tuple[int, int]], expected: int
) -> None:
    assert num_forced(lengths, scale=1.0) == expected


def scored(num_answers: int) -> Reference:
    return Reference(answers=tuple(answer(f"r{i}", score=1.0, forced=i < 20) for i in range(num_answers)))


def test_a_glance_can_only_reject_and_two_looks_may_accept() -> None:
    looks = plan_looks(scored(90), first=30, last=60, floor=0.99)
    assert looks == (Look(10, 20, may_accept=False), Look(30, 20), Look(60, 20))


def test_a_look_that_adds_nothing_is_not_taken() -> None:
    assert len(plan_looks(scored(30), first=30, last=60, floor=0.99)) == 2


def test_without_a_floor_there_is_one_look() -> None:
    assert plan_looks(scored(90), first=30, last=60, floor=None) == (Look(30, 20),)


@pytest.mark.parametrize(
    ("low", "high", "may_accept", "expected"),
    [(0.995, 1.0, True, True), (0.995, 1.0, False, False), (0.9, 0.98, False, True), (0.98, 1.0, True, False)],
)
def test_a_floor_is_decided_on_one_side_of_the_interval(
    low: float, high: float, may_accept: bool, expected: bool
) -> None:
    estimate = Estimate(value=(low + high) / 2, low=low, high=high, num_samples=50)
    assert decides(Look(30, 20, may_accept), estimate, 0.99) is expected


def test_a_value_under_the_floor_after_a_full_look_is_not_worth_more_requests() -> None:
    estimate = Estimate(value=0.98, low=0.96, high=1.0, num_samples=300)
    assert is_futile(Look(300, 80), estimate, 0.99)
    assert not is_futile(Look(100, 30, may_accept=False), estimate, 0.99)
    assert not is_futile(Look(300, 80), estimate, 0.97)
