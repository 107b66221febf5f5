"""Dollars and replicas of a recorded load."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traffic_cases import METADATA, chats

from optimizer.capacity import Capacity
from optimizer.cost import RecordedLoad, price, recorded_load
from optimizer.errors import OptimizerError
from search_spaces.skus import Sku
from workloads.estimate import Estimate
from workloads.request import Request
from workloads.workload import Workload

SKU = Sku(name="gpu", vendor="x", usd_per_hour=3.6, as_of="2026", source="list price")


def capacity(low: float, value: float, high: float) -> Capacity:
    estimate = Estimate(value=value, low=low, high=high, num_samples=50)
    return Capacity(tokens_per_second=estimate, basis="saturation")


def test_dollars_and_replicas_follow_from_tokens_per_second() -> None:
    load = RecordedLoad(rate_rps=25.0, tokens_per_request=100.0)
    cost = price(capacity(800, 1000, 1250), load, sku=SKU, sku_count=2)
    # 2 x 3.6 $/h = 0.002 $/s; over 1000 tokens/s: 2e-6 $ a token
    assert cost.usd_per_million_tokens.value == pytest.approx(2.0)
    # more capacity is cheaper: 0.002 / 1250 and 0.002 / 800
    assert cost.usd_per_million_tokens.low == pytest.approx(1.6)
    assert cost.usd_per_million_tokens.high == pytest.approx(2.5)
    # 1000 tokens/s at 100 a request: 10 requests/s a replica; 25 requests/s need 3, busy 25/30
    assert cost.capacity_rps.value == pytest.approx(10.0)
    assert cost.replicas == 3
    assert cost.usd_per_hour == pytest.approx(3 * 7.2)
    assert cost.utilisation == pytest.approx(25 / 30)
    assert (cost.sku, cost.sku_count, cost.capacity_basis) == ("gpu", 2, "saturation")


def test_a_load_that_one_replica_just_holds_takes_one() -> None:
    cost = price(capacity(999, 1000, 1001), RecordedLoad(rate_rps=10.0, tokens_per_request=100.0), sku=SKU, sku_count=1)
    assert (cost.replicas, cost.utilisation) == (1, pytest.approx(1.0))


@given(st.floats(1, 1e6), st.floats(0.01, 1e4), st.floats(1, 1e5))
def test_replicas_always_hold_the_load(tokens_per_second: float, rate: float, tokens: float) -> None:
    found = price(
        capacity(tokens_per_second, tokens_per_second, tokens_per_second),
        RecordedLoad(rate_rps=rate, tokens_per_request=tokens),
        sku=SKU,
        sku_count=1,
    )
    assert found.utilisation <= 1 + 1e-6
    assert found.replicas == 1 or found.utilisation > 0.5 - 1e-6


def test_the_recorded_load_is_that_of_the_whole_workload() -> None:
    load = recorded_load(chats(41, rate_rps=20.0))
    assert load.rate_rps == pytest.approx(20.0)  # 40 gaps in 2 s
    assert load.tokens_per_request > 14


def test_a_workload_without_a_clock_has_no_rate_to_pay_for() -> None:
    workload = Workload.from_requests([Request(request_id="a", prompt="x")], METADATA)
    with pytest.raises(OptimizerError, match="no arrival times"):
        recorded_load(workload)
