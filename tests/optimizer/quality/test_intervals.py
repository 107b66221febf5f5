"""Intervals that stay honest when every request came out the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from optimizer.quality.intervals import kept_share_interval, mean_interval


def outcomes(ties: int, losses: int = 0, gains: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Candidate's and reference's scores of right-or-wrong requests."""
    candidate = np.array([1.0] * ties + [0.0] * losses + [1.0] * gains)
    reference = np.array([1.0] * ties + [1.0] * losses + [0.0] * gains)
    return candidate, reference


def test_nothing_lost_in_n_requests_is_the_jeffreys_bound_and_not_certainty() -> None:
    estimate = kept_share_interval(*outcomes(300))
    # 2.5% quantile of Beta(300, 1/2) = 0.9917
    assert estimate.low == pytest.approx(stats.beta(300, 0.5).ppf(0.025), abs=0.001)
    assert (estimate.value, estimate.high) == (1.0, 1.0)


def test_three_hundred_requests_without_a_loss_meet_a_floor_of_99_percent() -> None:
    assert kept_share_interval(*outcomes(300)).low >= 0.99


def test_as_many_gains_as_losses_still_meet_the_floor_when_there_are_enough_requests() -> None:
    assert kept_share_interval(*outcomes(594, losses=3, gains=3)).low >= 0.99


def test_three_percent_damage_in_three_hundred_requests_is_beyond_doubt() -> None:
    estimate = kept_share_interval(*outcomes(291, losses=9))
    assert estimate.value == pytest.approx(0.97)
    assert estimate.high < 0.99


def test_beating_the_reference_earns_no_credit() -> None:
    estimate = kept_share_interval(*outcomes(80, gains=20))
    assert (estimate.value, estimate.high) == (1.0, 1.0)


def test_a_token_agreement_counts_its_imagined_loss_in_tokens() -> None:
    tokens = np.full(96, 50.0)
    # one token among Exp(1)-weighted 96 x 50 = 4800: 1 - 2.51 / 4800 = 0.9995
    assert kept_share_interval(tokens, tokens).low == pytest.approx(1 - 2.51 / 4800, abs=1e-4)


def test_a_mean_is_over_tokens_and_not_over_requests() -> None:
    estimate = mean_interval(np.array([1.0, 0.0]), np.array([10.0, 30.0]))
    assert estimate.value == pytest.approx(1 / 40)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(0, 20), st.integers(0, 20))
def test_the_value_lies_in_its_interval(ties: int, losses: int, gains: int) -> None:
    estimate = kept_share_interval(*outcomes(ties, losses, gains))
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_a_candidate_exactly_at_the_floor_is_rarely_accepted() -> None:
    """It truly loses 1%: the share of studies whose low end clears 0.99 stays under the 2.5% of one end, and noise."""
    losses = np.random.default_rng(0).binomial(600, 0.01, size=400).tolist()
    accepted = {n: kept_share_interval(*outcomes(600 - n, losses=n)).low >= 0.99 for n in set(losses)}
    assert np.mean([accepted[n] for n in losses]) <= 0.04
