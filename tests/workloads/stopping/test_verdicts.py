"""Counting in order of intended start, requests in flight included, and what is certain."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from queue_cases import looks, play, replayed
from record_cases import record

from workloads.metrics import summarize
from workloads.stopping.limit import PercentileLimit
from workloads.stopping.stop_rule import InFlight
from workloads.stopping.verdicts import Verdicts
from workloads.stopping.violated import Violated

E2EL = PercentileLimit(metric="e2el", percentile=95, limit_s=1.0)


def test_the_fast_ones_that_end_first_are_not_counted_before_the_slow_ones_ahead_of_them() -> None:
    verdicts = Verdicts(E2EL)
    slow = InFlight("slow", 0.0)
    verdicts.update(0.5, [record("fast", 0.1, 0.2), record("quick", 0.2, 0.3)], [slow])
    assert verdicts.num_counted == 0
    verdicts.update(1.1, [], [slow])  # above the limit already: decided without having ended
    assert (verdicts.num_counted, verdicts.num_above) == (3, 1)


def test_a_first_token_settles_a_ttft_before_the_end() -> None:
    verdicts = Verdicts(PercentileLimit(metric="ttft", percentile=95, limit_s=1.0))
    verdicts.update(0.5, [], [InFlight("a", 0.0, 0.4), InFlight("b", 0.1)])
    assert (verdicts.num_counted, verdicts.num_above) == (1, 0)


def test_a_request_whose_last_token_came_in_time_is_not_late_because_its_record_is() -> None:
    verdicts = Verdicts(E2EL)
    verdicts.update(1.1, [], [InFlight("a", 0.0, 0.4, is_ending=True)])
    assert verdicts.num_known_above == 0


def test_requests_that_fail_count_on_no_side() -> None:
    verdicts = Verdicts(E2EL)
    verdicts.update(2.0, [record("a", 0.0, status="error", end_s=0.1), record("b", 0.1, 1.9)], [InFlight("c", 0.5)])
    assert (verdicts.num_counted, verdicts.num_above, verdicts.num_known_above) == (2, 2, 2)
    verdicts.update(2.5, [record("c", 0.5, status="timeout", end_s=2.4)], [])
    assert verdicts.num_known_above == 1  # c leaves the percentile: it makes nothing certain


def test_time_per_token_is_decided_at_the_end() -> None:
    limit = PercentileLimit(metric="tpot", percentile=50, limit_s=0.1)
    verdicts = Verdicts(limit)
    verdicts.update(9.0, [record("a", 0.0, 1.0, 1.5), record("b", 0.0, 1.0)], [InFlight("c", 0.1, 1.0)])
    assert (verdicts.num_counted, verdicts.num_above) == (1, 1)  # b has one token and no time per token


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 3)), min_size=1, max_size=60),
    st.sampled_from([50.0, 90.0, 95.0, 99.0]),
    st.sampled_from([0.1, 0.7]),
)
def test_a_certain_answer_is_the_full_replays_and_comes_whenever_it_can(
    requests: list[tuple[float, float]], percentile: float, every_s: float
) -> None:
    arrivals, latencies = np.array(requests).T
    records = replayed(np.sort(arrivals), latencies)
    limit = PercentileLimit(metric="e2el", percentile=percentile, limit_s=1.0)
    reason = play(Violated({"slo": limit}, num_requests=len(records), clustering={}), records, every_s=every_s)
    above = sum(r.end_s - r.intended_start_s > 1.0 for r in records)
    if reason is not None:
        assert "(certain)" in reason
        assert summarize(records).percentile("e2el", percentile) > 1.0
    else:
        assert above < limit.num_that_decide(len(records))


@settings(max_examples=40)
@example([(1.0, 0.5)] * 9 + [(1.0, 2.0), (1.0, 0.1)])  # ties
@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 3)), min_size=1, max_size=40))
def test_every_request_is_counted_once_and_in_order(requests: list[tuple[float, float]]) -> None:
    arrivals, latencies = np.array(requests).T
    records = replayed(np.sort(arrivals), latencies)
    verdicts = Verdicts(E2EL)
    for look in looks(records, 0.3):
        verdicts.update(*look)
        counted = verdicts.num_counted
        started = sum(r.intended_start_s <= look[0] for r in records)
        assert counted <= started
    in_order = sorted(records, key=lambda r: (r.intended_start_s, r.request_id))
    assert verdicts.values() == pytest.approx([r.end_s - r.intended_start_s for r in in_order])
    assert verdicts.num_above == sum(r.end_s - r.intended_start_s > 1.0 for r in records)


@pytest.mark.parametrize(("num", "percentile", "decides"), [(100, 95, 6), (3000, 99, 31), (333, 95, 18), (10, 50, 6)])
def test_how_many_above_decide_a_percentile(num: int, percentile: float, decides: int) -> None:
    limit = PercentileLimit(metric="e2el", percentile=percentile, limit_s=1.0)
    assert limit.num_that_decide(num) == decides
    values = np.array([2.0] * decides + [0.0] * (num - decides))
    assert np.percentile(values, percentile) > 1.0
    values[0] = 0.0
    assert np.percentile(values, percentile) <= 1.0 or num < 100  # between two order statistics it may go either way
