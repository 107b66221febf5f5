"""The integer program against fleets that are cheapest by hand, and its promises on any load."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.fleet_mix import GAP, cheapest_mix


def test_each_kind_goes_where_it_is_cheapest_when_both_pools_fill() -> None:
    # Short requests: 10/s for $1 or 20/s for $4. Long ones: 1/s for $1 or 10/s for $4.
    mix = cheapest_mix(np.array([100.0, 100.0]), np.array([[10.0, 20.0], [1.0, 10.0]]), np.array([1.0, 4.0]))
    assert mix is not None
    assert mix.replicas.tolist() == [10, 10]
    assert mix.usd_per_hour == pytest.approx(50)
    assert mix.shares == pytest.approx(np.eye(2), abs=1e-6)


def test_a_kind_that_nothing_serves_leaves_no_fleet() -> None:
    assert cheapest_mix(np.array([1.0, 1.0]), np.array([[1.0], [0.0]]), np.array([1.0])) is None


def test_replicas_are_whole_and_half_used_ones_are_shared() -> None:
    mix = cheapest_mix(np.array([0.5, 0.5]), np.array([[1.0], [1.0]]), np.array([3.0]))
    assert mix is not None
    assert (mix.replicas.tolist(), mix.usd_per_hour) == ([1], 3.0)


rates = st.floats(0.1, 50)


@given(st.lists(rates, min_size=2, max_size=2), st.lists(rates, min_size=4, max_size=4), st.lists(rates, min_size=2))
def test_every_request_is_served_within_capacity_at_no_more_than_one_kind_of_replica_costs(
    load: list[float], capacity: list[float], usd: list[float]
) -> None:
    loads, capacities, dollars = np.array(load), np.array(capacity).reshape(2, 2), np.array(usd[:2])
    mix = cheapest_mix(loads, capacities, dollars)
    assert mix is not None
    assert mix.shares.sum(axis=1) == pytest.approx(1)
    used = (loads[:, None] * mix.shares / capacities).sum(axis=0)
    assert (used <= mix.replicas + 1e-4).all()
    alone = np.ceil((loads[:, None] / capacities).sum(axis=0) - 1e-9) * dollars
    assert mix.usd_per_hour <= alone.min() * (1 + GAP + 1e-4)
    assert mix.lower_bound_usd <= mix.usd_per_hour * (1 + 1e-6)


def test_a_config_that_another_beats_is_left_out_and_stays_in_its_place() -> None:
    capacity = np.array([[5.0, 10.0, 10.0, 20.0]])
    mix = cheapest_mix(np.array([10.0]), capacity, np.array([2.0, 1.5, 1.5, 9.0]))
    assert mix is not None
    assert mix.replicas.tolist() == [0, 1, 0, 0]
    assert mix.shares.tolist() == [[0.0, 1.0, 0.0, 0.0]]
