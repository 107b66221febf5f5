"""Cheaper fleets around one that holds: never one that does not, and none left out that a single step reaches."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.fleet_descent import MOST_BUSY, cheaper_mix, cheapest_descent, least_busy_shares
from optimizer.fleet_mix import Mix, cheapest_mix

LOAD = np.array([10.0, 1.0])
CAPACITY = np.array([[10.0, 20.0], [0.0, 2.0]])  # config 0 cannot serve the second kind
USD = np.array([1.0, 4.0])


def fleet(*replicas: int) -> Mix:
    counts = np.array(replicas)
    return Mix(replicas=counts, shares=np.full((2, 2), 0.5), usd_per_hour=float(counts @ USD), lower_bound_usd=0.0)


def descend(start: Mix, holds: Callable[[Mix], bool], max_tries: int = 60) -> Mix:
    return cheaper_mix(start, load_rps=LOAD, capacity_rps=CAPACITY, usd_per_hour=USD, holds=holds, max_tries=max_tries)


def test_a_dear_replica_is_changed_for_a_cheap_one_and_the_surplus_dropped() -> None:
    found = descend(fleet(2, 3), lambda mix: mix.replicas[1] >= 1 and mix.replicas.sum() >= 2)
    assert found.replicas.tolist() == [1, 1]
    assert found.usd_per_hour == 5.0


def test_what_never_holds_leaves_the_fleet_as_it_was() -> None:
    start = fleet(2, 3)
    assert descend(start, lambda _: False) is start


def test_a_kind_stays_with_a_config_that_serves_it() -> None:
    assert descend(fleet(2, 3), lambda _: True).replicas[1] >= 1


def test_it_is_asked_no_more_often_than_allowed() -> None:
    asked: list[Mix] = []

    def refuse(mix: Mix) -> bool:
        asked.append(mix)
        return False

    descend(fleet(9, 9), refuse, max_tries=3)
    assert len(asked) == 3


@given(st.lists(st.integers(0, 5), min_size=2, max_size=2))
def test_the_shares_serve_every_kind_and_keep_the_busiest_pool_within_bounds(replicas: list[int]) -> None:
    shares = least_busy_shares(LOAD, CAPACITY, np.array(replicas))
    if not replicas[1]:
        assert shares is None
        return
    if shares is None:
        return
    assert shares.sum(axis=1) == pytest.approx(1)
    assert shares[1, 0] == 0
    busy = np.divide(LOAD[:, None] * shares, CAPACITY, out=np.zeros_like(shares), where=CAPACITY > 0).sum(axis=0)
    assert (busy <= MOST_BUSY * np.array(replicas) + 1e-6).all()


@given(st.integers(1, 40))
def test_where_the_program_is_exact_nothing_cheaper_holds(rate: int) -> None:
    load = np.array([float(rate)])
    capacity, usd = np.array([[3.0, 10.0]]), np.array([1.0, 2.5])
    mix = cheapest_mix(load, capacity, usd, gap=0.0)
    assert mix is not None

    def holds(tried: Mix) -> bool:
        return bool((load @ (tried.shares / capacity) <= tried.replicas + 1e-9).all())

    found = cheaper_mix(mix, load_rps=load, capacity_rps=capacity, usd_per_hour=usd, holds=holds)
    assert found.usd_per_hour == pytest.approx(mix.usd_per_hour)


counts = st.lists(st.integers(0, 4), min_size=3, max_size=3).filter(any)


@given(
    st.lists(counts, max_size=3),
    st.lists(st.floats(0.1, 9), min_size=3, max_size=3),
    st.lists(st.floats(0.2, 9), min_size=6, max_size=6),
    st.floats(0.1, 20),
    st.integers(0, 10),
)
def test_what_comes_of_several_fleets_holds_and_is_no_dearer_than_any_of_them(
    fleets: list[list[int]], dollars: list[float], capacities: list[float], needed: float, max_tries: int
) -> None:
    usd, capacity = np.array(dollars), np.array(capacities).reshape(2, 3)

    def holds(mix: Mix) -> bool:
        return bool(mix.replicas @ capacity.min(axis=0) >= needed)

    starts = [
        Mix(replicas=counts, shares=np.full((2, 3), 1 / 3), usd_per_hour=float(counts @ usd), lower_bound_usd=0.0)
        for counts in map(np.array, fleets)
    ]
    starts = [mix for mix in starts if holds(mix)]
    found = cheapest_descent(
        starts, load_rps=LOAD, capacity_rps=capacity, usd_per_hour=usd, holds=holds, max_tries=max_tries
    )
    assert (found is None) == (not starts)
    if found is not None:
        assert holds(found)
        assert found.usd_per_hour <= min(start.usd_per_hour for start in starts)
        assert found.usd_per_hour == pytest.approx(float(found.replicas @ usd))
