"""Intervals: the same numbers as the metrics, honest coverage, paired ratios."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_cases import record

from workloads.errors import UndefinedMetricError, WorkloadError
from workloads.estimate import block_bootstrap, blocks_of, busy_periods, ratio_bootstrap
from workloads.metrics import summarize
from workloads.record_arrays import RecordArrays
from workloads.records import RequestRecord
from workloads.slo import SloThresholds
from workloads.statistic import LatencyPercentile, statistic_named

SLOS = SloThresholds(ttft_s=0.5)
NAMES = (
    "mean_ttft_ms",
    "p95_ttft_ms",
    "median_itl_ms",
    "mean_itl_ms",
    "p50_e2el_ms",
    "mean_tpot_ms",
    "request_throughput",
    "output_throughput",
    "total_token_throughput",
    "request_goodput",
    "slo_attainment",
    "error_rate",
)


def queue_run(rng: np.random.Generator, count: int, *, speed: float = 1.0, gap: float = 1.0) -> list[RequestRecord]:
    """A single-server queue: requests wait for each other, so neighbours are correlated."""
    arrivals = np.cumsum(rng.exponential(gap, count))
    service = rng.exponential(0.5, count) / speed
    records, free = [], 0.0
    for i in range(count):
        free = max(free, arrivals[i]) + service[i]
        records.append(record(str(i), arrivals[i], free - service[i] / 2, free))
    return records


@pytest.mark.parametrize("name", NAMES)
def test_a_statistic_is_the_metric_of_the_same_name(name: str) -> None:
    records = queue_run(np.random.default_rng(1), 60)
    records[7] = record("7", records[7].intended_start_s, status="error", end_s=records[7].end_s)
    records[9] = record("9", records[9].intended_start_s, status="cut", end_s=records[9].end_s)
    expected = summarize(records, SLOS).value(name)
    assert block_bootstrap(records, statistic_named(name, SLOS), num_resamples=20).value == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.001, 10), min_size=1, max_size=12),
    st.floats(0, 100),
    st.integers(0, 2**32 - 1),
)
def test_a_weighted_percentile_is_numpys_of_the_repeated_values(
    values: list[float], percentile: float, seed: int
) -> None:
    arrays = RecordArrays.from_records([record(str(i), 0.0, v) for i, v in enumerate(values)])
    counts = np.random.default_rng(seed).integers(0, 4, size=(5, len(values)))
    counts[:, 0] += 1
    found = LatencyPercentile(metric="ttft", percentile=percentile).resampled(arrays, counts)
    expected = [np.percentile(np.repeat(values, row), percentile) for row in counts]
    assert found == pytest.approx(expected)


def test_busy_periods_end_when_nothing_is_in_flight() -> None:
    # [0, 2] holds [1, 1.5]; [2, 3] starts as the first ends, so still busy; [4, 5] is a period of its own
    records = [record("a", 0.0, 2.0), record("b", 1.0, 1.5), record("c", 2.0, 3.0), record("d", 4.0, 5.0)]
    assert busy_periods(RecordArrays.from_records(records)).tolist() == [0, 0, 0, 1]


def test_too_few_busy_periods_give_way_to_runs_of_arrivals() -> None:
    records = [record(str(i), float(-i), 100.0) for i in range(100)]  # one period; arrivals in reverse order
    blocks = blocks_of(RecordArrays.from_records(records))
    assert blocks.tolist() == [9 - i // 10 for i in range(100)]


def test_intervals_of_a_correlated_run_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    truth = 1 / (1 / 0.5 - 1 / 2.0)  # mean time in an M/M/1 queue: 1 / (service rate - arrival rate)
    estimates = [
        block_bootstrap(queue_run(rng, 400, gap=2.0), statistic_named("mean_e2el_ms"), num_resamples=200)
        for _ in range(60)
    ]
    covered = np.mean([e.low <= 1000 * truth <= e.high for e in estimates])
    assert 0.86 <= covered <= 1.0


def test_the_same_seed_gives_the_same_interval() -> None:
    records = queue_run(np.random.default_rng(2), 50)
    statistic = statistic_named("p95_e2el_ms")
    assert block_bootstrap(records, statistic, seed=3) == block_bootstrap(records, statistic, seed=3)


def test_a_plain_function_can_be_bootstrapped_too() -> None:
    records = queue_run(np.random.default_rng(2), 50)
    plain = block_bootstrap(records, lambda arrays: float(np.nanmean(arrays.e2el_s)), num_resamples=300, seed=1)
    fast = block_bootstrap(records, statistic_named("mean_e2el_ms"), num_resamples=300, seed=1)
    assert (1000 * plain.low, 1000 * plain.high) == pytest.approx((fast.low, fast.high))


def test_a_paired_ratio_finds_the_speedup_and_is_tighter_than_an_unpaired_one() -> None:
    slow = [queue_run(np.random.default_rng(seed), 150) for seed in range(4)]
    fast = [queue_run(np.random.default_rng(seed), 150, speed=2.0) for seed in range(4)]
    strangers = [[record(f"x{r.request_id}", r.intended_start_s, *r.token_times_s) for r in run] for run in fast]
    statistic = statistic_named("mean_e2el_ms")
    paired = ratio_bootstrap(slow, fast, statistic)
    unpaired = ratio_bootstrap(slow, strangers, statistic)
    assert paired.value == unpaired.value
    assert 1.0 < paired.low < paired.value < paired.high
    assert paired.high - paired.low < unpaired.high - unpaired.low


def test_a_run_against_itself_has_ratio_one() -> None:
    run = queue_run(np.random.default_rng(4), 80)
    estimate = ratio_bootstrap([run, run], [run, run], statistic_named("p95_ttft_ms"))
    assert (estimate.low, estimate.value, estimate.high) == (1.0, 1.0, 1.0)


def test_unequal_numbers_of_runs_make_no_pairs() -> None:
    with pytest.raises(WorkloadError, match="A B B A"):
        ratio_bootstrap([[]], [], statistic_named("mean_ttft_ms"))


def test_an_undefined_statistic_is_an_exception() -> None:
    failed = [record("f", 0.0, status="error", end_s=1.0)]
    with pytest.raises(UndefinedMetricError):
        block_bootstrap(failed, statistic_named("mean_ttft_ms"))
    with pytest.raises(UndefinedMetricError, match="no interval"):
        statistic_named("std_ttft_ms")
