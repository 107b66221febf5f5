"""KL and agreement against cases computed by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.quality.divergence import compare, kl_per_position, top_logprobs


def logs(**probabilities: float) -> dict[int, float]:
    """`logs(t1=0.5)` is {1: ln 0.5}."""
    return {int(name[1:]): math.log(p) for name, p in probabilities.items()}


def test_two_tokens_and_a_rest_bucket_give_the_textbook_divergence() -> None:
    reference = top_logprobs([logs(t1=0.5, t2=0.25)])
    candidate = top_logprobs([logs(t1=0.25, t2=0.5)])
    # 0.5 ln(0.5/0.25) + 0.25 ln(0.25/0.5) + 0.25 ln(0.25/0.25) = 0.25 ln 2
    assert kl_per_position(reference, candidate)[0] == pytest.approx(0.25 * math.log(2))


def test_a_token_that_only_one_side_lists_goes_into_the_rest() -> None:
    reference = top_logprobs([logs(t1=0.6, t2=0.3)])
    candidate = top_logprobs([logs(t1=0.4, t3=0.5)])
    # shared: token 1; rest 0.4 against 0.6: 0.6 ln(0.6/0.4) + 0.4 ln(0.4/0.6) = 0.2 ln 1.5
    assert kl_per_position(reference, candidate)[0] == pytest.approx(0.2 * math.log(1.5))


def test_the_same_distributions_diverge_by_nothing() -> None:
    same = top_logprobs([logs(t4=0.9, t2=0.1), logs(t7=1.0)])
    divergence = compare(same, same)
    assert divergence.kl_nats == pytest.approx(0, abs=1e-7)
    assert (divergence.num_agreements, divergence.num_flips) == (2, 0)


def test_a_flip_is_a_position_with_another_likeliest_token() -> None:
    reference = top_logprobs([logs(t1=0.6, t2=0.3), logs(t3=0.9)])
    candidate = top_logprobs([logs(t2=0.5, t1=0.4), logs(t3=0.8)])
    divergence = compare(reference, candidate)
    assert (divergence.num_tokens, divergence.num_agreements, divergence.num_flips) == (2, 1, 1)


def test_a_tie_goes_to_the_smaller_id_as_in_argmax() -> None:
    assert top_logprobs([logs(t9=0.5, t3=0.5)]).top1().tolist() == [3]


def test_rows_of_different_length_are_padded_and_the_padding_is_never_shared() -> None:
    reference = top_logprobs([logs(t1=0.5), logs(t1=0.5, t2=0.4)])
    candidate = top_logprobs([logs(t2=0.5), logs(t1=0.5, t2=0.4)])
    # first position: nothing shared, all in the rest: 1 ln(1/1) = 0
    assert kl_per_position(reference, candidate).tolist() == pytest.approx([0, 0], abs=1e-7)


distributions = st.lists(st.floats(0.01, 1), min_size=6, max_size=6).map(lambda x: np.array(x) / sum(x))


@given(distributions, distributions, st.integers(1, 6), st.integers(1, 6))
def test_the_listed_tokens_never_give_more_than_the_full_divergence(
    p: np.ndarray, q: np.ndarray, width_p: int, width_q: int
) -> None:
    def listed(x: np.ndarray, width: int) -> dict[int, float]:
        return {int(i): float(np.log(x[i])) for i in np.argsort(-x)[:width]}

    lower = kl_per_position(top_logprobs([listed(p, width_p)]), top_logprobs([listed(q, width_q)]))[0]
    full = float(np.sum(p * np.log(p / q)))
    assert 0 <= lower <= full + 1e-6
