"""What every `Measurer` must promise. A test class gives it a measurer and configs; see `test_measurers.py`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.backend import EngineError
from engine.config import EngineConfig
from optimizer.client import silent
from optimizer.evaluator import Evaluator
from optimizer.findings import Findings, Measurer
from optimizer.objective import parse_objective
from optimizer.results import Provenance, TrialResult, TrialState
from optimizer.trial_folder import TrialFolder
from workloads.metrics import summarize
from workloads.records import read_records

NUM_REQUESTS = 40


class MeasurerContract:
    """`measurer`: over `NUM_REQUESTS` requests; `good` runs on it, `refused` fails its check, `failing` in `find`."""

    provenance: Provenance
    is_deterministic: bool

    @pytest.fixture
    def measurer(self, tmp_path: Path) -> Measurer:
        raise NotImplementedError

    @pytest.fixture
    def good(self, tmp_path: Path) -> EngineConfig:
        raise NotImplementedError

    @pytest.fixture
    def refused(self, good: EngineConfig) -> EngineConfig:
        raise NotImplementedError

    @pytest.fixture
    def failing(self, good: EngineConfig) -> EngineConfig:
        raise NotImplementedError

    @pytest.fixture
    def find(self, measurer: Measurer, tmp_path: Path) -> Callable[..., Findings]:
        def find(config: EngineConfig, number: int = 0, report: Callable[[str], None] = silent) -> Findings:
            folder = TrialFolder(tmp_path, number)
            folder.begin(config)
            measurer.prepare(config)
            return measurer.find(config, folder, report)

        return find

    @pytest.fixture
    def evaluate(self, measurer: Measurer, tmp_path: Path) -> Callable[[EngineConfig], TrialResult]:
        evaluator = Evaluator(measurer=measurer, study_dir=tmp_path, objective=parse_objective("latency"), slos=())
        return lambda config: evaluator.evaluate(0, config, origin="default")

    def test_its_provenance_is_one_and_goes_to_every_result(
        self, measurer: Measurer, evaluate: Callable[[EngineConfig], TrialResult], good: EngineConfig
    ) -> None:
        assert measurer.provenance is self.provenance
        result = evaluate(good)
        assert (result.state, result.provenance) == (TrialState.COMPLETE, self.provenance)

    def test_a_prediction_says_what_it_rests_on_and_a_measurement_rests_on_nothing(
        self, find: Callable[..., Findings], good: EngineConfig
    ) -> None:
        assert bool(find(good).basis) == (self.provenance is Provenance.PREDICTED)

    def test_metrics_are_those_of_the_records_it_leaves(
        self, find: Callable[..., Findings], good: EngineConfig, tmp_path: Path
    ) -> None:
        found = find(good)
        records = read_records(tmp_path / "trials" / "0000" / "records.parquet")
        told = summarize(records).flat()
        assert len(records) == found.metrics["completed"] == NUM_REQUESTS
        for name in ("mean_ttft_ms", "mean_tpot_ms", "p95_e2el_ms"):
            assert found.metrics[name] == pytest.approx(told[name])

    def test_records_are_in_the_order_of_time(
        self, find: Callable[..., Findings], good: EngineConfig, tmp_path: Path
    ) -> None:
        find(good)
        for record in read_records(tmp_path / "trials" / "0000" / "records.parquet"):
            assert record.first_token_s is not None
            assert record.end_s is not None
            times = (record.intended_start_s, record.first_token_s, *record.token_times_s, record.end_s)
            assert list(times) == sorted(times)
            assert len(record.token_times_s) == record.output_tokens

    def test_a_complete_candidate_has_a_price_and_is_not_also_stopped(
        self, find: Callable[..., Findings], good: EngineConfig
    ) -> None:
        found = find(good)
        assert found.cost is not None
        assert found.cost.usd_per_million_tokens.value > 0
        assert not found.stop_reason
        assert not found.bounds

    def test_a_refusal_has_a_reason_and_leaves_no_records(
        self,
        measurer: Measurer,
        evaluate: Callable[[EngineConfig], TrialResult],
        refused: EngineConfig,
        tmp_path: Path,
    ) -> None:
        assert all(refusal.reason for refusal in measurer.check(refused))
        result = evaluate(refused)
        assert result.state is TrialState.REFUSED
        assert result.reason
        assert (result.metrics, result.cost) == ({}, None)
        assert not (tmp_path / result.directory / "records.parquet").exists()

    def test_a_failure_is_an_engine_error_and_an_outcome_without_numbers(
        self,
        find: Callable[..., Findings],
        evaluate: Callable[[EngineConfig], TrialResult],
        failing: EngineConfig,
    ) -> None:
        with pytest.raises(EngineError):
            find(failing)
        result = evaluate(failing)
        assert (result.state, result.provenance) == (TrialState.FAILED, self.provenance)
        assert result.failure is not None
        assert result.reason
        assert (result.metrics, result.cost, result.objective) == ({}, None, None)

    def test_a_failure_does_not_spoil_the_next_candidate(
        self, find: Callable[..., Findings], failing: EngineConfig, good: EngineConfig
    ) -> None:
        with pytest.raises(EngineError):
            find(failing)
        assert find(good, 1).metrics["completed"] == NUM_REQUESTS

    def test_it_says_what_it_is_doing(self, find: Callable[..., Findings], good: EngineConfig) -> None:
        told: list[str] = []
        find(good, report=told.append)
        assert told
        assert all(told)

    def test_where_it_is_deterministic_the_same_config_has_the_same_numbers(
        self, find: Callable[..., Findings], good: EngineConfig
    ) -> None:
        first, second = find(good), find(good, 1)
        assert set(first.metrics) == set(second.metrics)
        if self.is_deterministic:
            assert first == second
