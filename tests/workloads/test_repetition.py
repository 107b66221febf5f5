"""Copying from the prompt: shares and steps that can be counted by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workload_cases import chat, workload

from workloads.characterize import characterize
from workloads.repetition import DRAFT_LENGTH, lookup_steps
from workloads.request import Request

PIECES = st.lists(st.integers(0, 3), max_size=40)


def test_a_verbatim_copy_takes_a_step_for_six_pieces() -> None:
    # the first draft needs three known pieces before it: here the prompt's end, which the answer's start follows
    prompt = [1, 2, 3, *range(10, 22), 1, 2, 3]
    assert lookup_steps(prompt, list(range(10, 22))) == 2


def test_new_words_take_a_step_each() -> None:
    assert lookup_steps([1, 2, 3, 4], [10, 11, 12, 13, 14]) == 5


@given(PIECES, st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_steps_are_between_a_full_draft_each_and_one_piece_each(prompt: list[int], response: list[int]) -> None:
    steps = lookup_steps(prompt, response)
    assert -(-len(response) // (DRAFT_LENGTH + 1)) <= steps <= len(response)


def test_shares_of_ngrams_are_of_the_answers() -> None:
    request = Request(request_id="a", prompt_token_ids=(1, 2, 3, 4, 5), response_token_ids=(3, 4, 5, 9))
    found = characterize(workload(request)).repetition
    assert found is not None
    assert dict(found.copied) == pytest.approx({"1": 3 / 4, "2": 2 / 3, "4": 0.0})
    assert (found.basis, found.num_requests) == ("token ids", 1)


def test_without_responses_nothing_is_said() -> None:
    assert characterize(workload(chat("a", 0.0), chat("b", 1.0))).repetition is None


def test_text_without_a_tokenizer_counts_words() -> None:
    message = '[{"role":"user","content":"the quick brown fox jumps"}]'
    found = characterize(workload(chat("a", 0.0, messages=message, response="the quick brown fox"))).repetition
    assert found is not None
    assert found.basis == "words"
    assert found.copied["4"] == 1.0
