"""Counts of parts add up to the counts of the whole, and nothing is lost at the ends."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workloads.histograms import BinCounter, PairCounter, histogram, second_edges, time_series, token_edges

TOKENS = st.lists(st.integers(0, 2_000_000), min_size=1, max_size=60)


@given(TOKENS, st.integers(0, 60))
def test_a_histogram_of_parts_is_the_histogram_of_the_whole(values: list[int], cut: int) -> None:
    numbers = np.array(values, np.float64)
    counter = BinCounter(token_edges(4))
    for part in (numbers[:cut], numbers[cut:]):
        counter.feed(part)
    found = counter.result()
    assert found is not None
    assert found == histogram(numbers, token_edges(4))
    assert sum(found.counts) == len(values)
    assert found.counts[0]
    assert found.counts[-1]
    assert found.edges[0] <= min(values)
    assert found.edges[-1] > max(values)


@given(st.lists(st.tuples(st.integers(0, 200_000), st.integers(0, 5_000)), min_size=1, max_size=60))
def test_a_joint_histogram_has_the_histograms_as_its_margins(pairs: list[tuple[int, int]]) -> None:
    counter = PairCounter(token_edges(4))
    xs, ys = np.array(pairs, np.float64).T
    counter.feed(xs, ys)
    counter.feed(np.array([np.nan, 3.0]), np.array([3.0, np.nan]))  # not counted: one of the pair is unknown
    found = counter.result()
    assert found is not None
    assert sum(map(sum, found.counts)) == len(pairs)
    assert len(found.counts) == len(found.x_edges) - 1 <= 24
    assert {len(row) for row in found.counts} == {len(found.y_edges) - 1}
    margin = [int(((xs >= a) & (xs < b)).sum()) for a, b in zip(found.x_edges, found.x_edges[1:], strict=False)]
    assert [sum(row) for row in found.counts] == margin


def test_edges_are_whole_tokens_that_grow() -> None:
    edges = token_edges(4)
    assert edges[:6].tolist() == [0, 1, 2, 3, 4, 5]
    assert (np.diff(edges) > 0).all()
    assert (np.diff(second_edges()) > 0).all()


def test_nothing_counted_is_no_histogram() -> None:
    assert histogram(np.array([np.nan]), token_edges(4)) is None
    assert PairCounter(token_edges(4)).result() is None


@given(st.lists(st.floats(0, 1e7), min_size=1, max_size=50))
def test_a_time_series_has_every_arrival_in_few_round_steps(times: list[float]) -> None:
    found = time_series(np.sort(np.array(times)) - min(times))
    assert sum(found.counts) == len(times)
    assert len(found.counts) <= 241
