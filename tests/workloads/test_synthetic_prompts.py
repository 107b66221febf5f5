"""Prompts without text: exact lengths, shared prefixes, ordinary tokens, the same every time."""

from hypothesis import given
from hypothesis import strategies as st

from workloads.metadata import PrefixHashing
from workloads.request import Request
from workloads.synthetic import SyntheticPrompts, ordinary_ids

PROMPTS = SyntheticPrompts(vocab_size=1000, prefix=PrefixHashing(block_size=16))


def request(name: str, *hashes: int) -> Request:
    return Request(request_id=name, session_id=f"s{name}", prefix_hashes=hashes)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5), st.integers(0, 120))
def test_prompts_have_the_length_asked_for_and_ordinary_ids(hashes: list[int], length: int) -> None:
    ids = PROMPTS.token_ids(request("a", *hashes), length)
    first, end = ordinary_ids(1000)
    assert len(ids) == length
    assert all(first <= token < end for token in ids)


def test_equal_leading_hashes_give_equal_tokens_and_the_tail_is_the_requests_own() -> None:
    a, b = PROMPTS.token_ids(request("a", 1, 2), 40), PROMPTS.token_ids(request("b", 1, 2), 40)
    assert a[:32] == b[:32]
    assert a[32:] != b[32:]


def test_a_hash_in_another_place_is_another_block() -> None:
    assert PROMPTS.token_ids(request("a", 1), 16) != PROMPTS.token_ids(request("a", 5, 1), 32)[16:]


def test_hashes_of_session_scope_differ_between_sessions() -> None:
    prompts = SyntheticPrompts(vocab_size=1000, prefix=PrefixHashing(block_size=16, scope="session"))
    assert prompts.token_ids(request("a", 1), 16) != prompts.token_ids(request("b", 1), 16)


def test_prompts_do_not_change_between_versions() -> None:
    assert PROMPTS.token_ids(request("a", 1), 4) == [509, 555, 148, 103]
