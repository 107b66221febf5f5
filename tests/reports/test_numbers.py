"""Numbers as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.numbers import duration, memory, three_digits, times_better, verdict, with_interval
from workloads.estimate import Estimate


def estimate(value: float, low: float, high: float) -> Estimate:
    return Estimate(value=value, low=low, high=high, num_samples=10)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (812.4, "812"), (1.944, "1.94"), (9.996, "10.0"), (12345, "12,300"), (999.6, "1,000"),
        (0.00012345, "0.000123"), (-4.567, "-4.57"), (float("nan"), "unknown"), (float("inf"), "unlimited"),
    ],
)  # fmt: skip
def test_three_significant_digits(value: float, text: str) -> None:
    assert three_digits(value) == text


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_three_digits_read_back_within_half_a_percent(value: float) -> None:
    assert float(three_digits(value).replace(",", "")) == pytest.approx(value, rel=0.00501)


def test_an_interval_follows_its_value() -> None:
    assert with_interval(estimate(812.3, 790, 833), unit="ms") == "812 ms [790, 833]"
    assert with_interval(estimate(1, 1, 1), style="share") == "1.0000"
    assert with_interval(estimate(5, float("nan"), float("nan"))) == "5.00"
    assert times_better(estimate(1.94, 1.71, 2.2)) == "1.94x [1.71, 2.20]"


def test_a_verdict_claims_only_what_its_interval_proves() -> None:
    assert verdict(estimate(1.94, 1.71, 2.2)) == "1.94x [1.71, 2.20] better"
    assert verdict(estimate(1.02, 0.95, 1.1)) == "no clear difference (1.02x [0.950, 1.10])"
    assert verdict(estimate(0.5, 0.4, 0.8)) == "2.00x [1.25, 2.50] worse"
    assert verdict(estimate(1.5, 1.5, 1.5)) == "1.50x better"


def test_durations_and_sizes() -> None:
    assert [duration(seconds) for seconds in (0.4, 43, 125, 7380)] == ["0 s", "43 s", "2 min 5 s", "2 h 3 min"]
    assert [memory(size) for size in (2**29, 3 * 2**29)] == ["512 MiB", "1.5 GiB"]
