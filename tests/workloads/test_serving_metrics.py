"""Metrics against cases small enough to compute by hand."""

from pathlib import Path

import numpy as np
import pytest
from record_cases import record

from workloads.errors import UndefinedMetricError, WorkloadError
from workloads.metrics import ServingMetrics, min_requests, summarize
from workloads.records import read_records, write_records
from workloads.slo import SloThresholds

# a: intended 0.0, tokens 0.2 0.3 0.5       b: intended 1.0, sent 1.1, tokens 1.6 1.6 (one chunk)
A = record("a", 0.0, 0.2, 0.3, 0.5)
B = record("b", 1.0, 1.6, 1.6, sent_s=1.1, slo_class="batch")
FAILED = record("f", 2.0, status="error", end_s=2.5)
CUT = record("c", 2.2, 2.4, status="cut", end_s=9.0)


@pytest.fixture
def metrics() -> ServingMetrics:
    return summarize([A, B, FAILED, CUT], SloThresholds(ttft_s=0.3))


def test_ttft_counts_from_the_intended_start(metrics: ServingMetrics) -> None:
    # a: 0.2 - 0.0 = 0.2; b: 1.6 - 1.0 = 0.6 although sent at 1.1; mean (0.2 + 0.6) / 2 = 0.4
    assert metrics.values("ttft").tolist() == pytest.approx([0.2, 0.6])
    assert metrics.mean("ttft") == pytest.approx(0.4)


def test_the_send_time_view_leaves_out_what_a_request_waited_in_the_client(metrics: ServingMetrics) -> None:
    # b was sent at 1.1: 1.6 - 1.1 = 0.5; TPOT needs no start; rates are per 2.5 s as before
    sent = summarize([A, B, FAILED, CUT], SloThresholds(ttft_s=0.55), clock="sent")
    assert sent.clock == "sent"
    assert metrics.clock == "intended"
    assert sent.values("ttft").tolist() == pytest.approx([0.2, 0.5])
    assert sent.values("e2el").tolist() == pytest.approx([0.5, 0.5])
    assert sent.values("tpot").tolist() == pytest.approx(metrics.values("tpot").tolist())
    assert sent.values("schedule_lag").tolist() == [0, 0, 0]
    assert sent.slo_attainment == pytest.approx(2 / 3)
    assert sent.duration_s == pytest.approx(2.5)


def test_e2el_is_the_last_token_minus_the_intended_start(metrics: ServingMetrics) -> None:
    # a: 0.5 - 0.0; b: 1.6 - 1.0
    assert metrics.values("e2el").tolist() == pytest.approx([0.5, 0.6])


def test_tpot_spreads_what_follows_the_first_token(metrics: ServingMetrics) -> None:
    # a: (0.5 - 0.2) / 2 = 0.15; b: (0.6 - 0.6) / 1 = 0
    assert metrics.values("tpot").tolist() == pytest.approx([0.15, 0.0])


def test_itl_is_every_gap_and_zero_inside_a_chunk(metrics: ServingMetrics) -> None:
    # a: 0.3 - 0.2, 0.5 - 0.3; b: 1.6 - 1.6; never a gap from a's last token to b's first
    assert metrics.values("itl").tolist() == pytest.approx([0.1, 0.2, 0.0])


def test_percentiles_are_linear_between_order_statistics(metrics: ServingMetrics) -> None:
    # p95 of {0.2, 0.6}: 0.2 + 0.95 * 0.4 = 0.58
    assert metrics.percentile("ttft", 95) == pytest.approx(0.58)
    assert metrics.value("p95_ttft_ms") == pytest.approx(580)


def test_rates_are_per_second_from_the_first_intended_start_to_the_last_end(metrics: ServingMetrics) -> None:
    # ends: 0.5, 1.6, 2.5 (the cut request's 9.0 does not count), so 2.5 s; 2 requests, 5 output, 20 input tokens
    assert metrics.duration_s == pytest.approx(2.5)
    assert metrics.request_throughput == pytest.approx(2 / 2.5)
    assert metrics.output_throughput == pytest.approx(5 / 2.5)
    assert metrics.total_token_throughput == pytest.approx(25 / 2.5)


def test_goodput_counts_errors_as_violations_and_leaves_cut_requests_out(metrics: ServingMetrics) -> None:
    # good: a (0.2 <= 0.3); b misses; f failed; c is on neither side: 1 good of 3
    assert metrics.request_goodput == pytest.approx(1 / 2.5)
    assert metrics.slo_attainment == pytest.approx(1 / 3)
    assert (metrics.completed, metrics.failed, metrics.num_cut) == (2, 1, 1)


def test_slo_classes_have_bounds_of_their_own() -> None:
    metrics = summarize([A, B], {"batch": SloThresholds(ttft_s=1.0), "chat": SloThresholds(ttft_s=0.1)})
    assert metrics.slo_attainment == 1.0  # b is within batch's; a's class has no bounds


def test_a_predicate_can_say_what_is_good() -> None:
    metrics = summarize([A, B], lambda arrays: arrays.e2el_s < 0.55)
    assert metrics.slo_attainment == 0.5


def test_one_token_has_no_tpot_to_violate() -> None:
    metrics = summarize([record("one", 0.0, 0.1)], SloThresholds(tpot_s=0.001))
    assert metrics.slo_attainment == 1.0
    with pytest.raises(UndefinedMetricError, match="tpot is undefined"):
        metrics.mean("tpot")


def test_schedule_lag_is_sent_minus_intended(metrics: ServingMetrics) -> None:
    # a 0, b 0.1, f 0; the cut request has none
    assert metrics.values("schedule_lag").tolist() == pytest.approx([0.0, 0.1, 0.0])


def test_concurrency_counts_from_sent_to_end() -> None:
    # a [0, 0.5], x [0.4, 0.9], y [0.5, 0.6]: at 0.5 a leaves before y comes, so 2 at most
    records = [A, record("x", 0.4, 0.9), record("y", 0.5, 0.6)]
    assert summarize(records).max_concurrent_requests == 2


def test_flat_has_vllm_names_in_milliseconds_and_no_thin_tail(metrics: ServingMetrics) -> None:
    flat = metrics.flat()
    assert flat["mean_ttft_ms"] == pytest.approx(400)
    assert flat["median_itl_ms"] == pytest.approx(100)
    assert flat["std_e2el_ms"] == pytest.approx(50)  # of {500, 600}
    assert flat["completed"] == 2
    assert "p99_ttft_ms" not in flat
    assert "p99_ttft_ms" in metrics.flat(thin_tails=True)
    assert "500 are needed" in metrics.notes()[0]


def test_p99_needs_five_hundred_requests() -> None:
    assert (min_requests(99), min_requests(99.9), min_requests(95)) == (500, 5000, 1)
    records = [record(str(i), float(i), i + 0.1) for i in range(500)]
    assert "p99_ttft_ms" in summarize(records).flat()
    assert summarize(records).notes() == []


def test_undefined_is_an_exception_and_absent_from_flat() -> None:
    nothing = summarize([FAILED])
    with pytest.raises(UndefinedMetricError, match="no completed request"):
        nothing.mean("ttft")
    with pytest.raises(UndefinedMetricError, match="no SLOs"):
        _ = nothing.request_goodput
    assert not [name for name in nothing.flat() if name.endswith("_ttft_ms")]
    assert all(np.isfinite(value) for value in nothing.flat().values())


def test_no_records_at_all_define_only_counts() -> None:
    assert summarize([]).flat() == {
        "duration": 0,
        "completed": 0,
        "failed": 0,
        "num_cut": 0,
        "total_input_tokens": 0,
        "total_output_tokens": 0,
        "max_concurrent_requests": 0,
    }


def test_an_unknown_metric_name_says_what_names_look_like(metrics: ServingMetrics) -> None:
    with pytest.raises(UndefinedMetricError, match="p95_ttft_ms"):
        metrics.value("p95_latency")


def test_records_survive_parquet(tmp_path: Path) -> None:
    records = [A, B, FAILED, CUT, record("t", 3.0, 4.0, session_id="s", turn=2, http_status=200, error="é")]
    write_records(tmp_path / "r.parquet", records)
    assert read_records(tmp_path / "r.parquet") == records
    assert [path.name for path in tmp_path.iterdir()] == ["r.parquet"]


def test_a_file_without_records_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"no")
    with pytest.raises(WorkloadError, match="truncated or not parquet"):
        read_records(tmp_path / "x.parquet")
