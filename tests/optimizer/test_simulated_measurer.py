"""One candidate from config to a predicted result, without an engine."""

import json
from pathlib import Path

import pytest
from simulated_cases import LLAMA_8B
from traffic_cases import chats, sessions

from engine.backend import FailureKind
from engine.config import EngineConfig
from engine.simulated_backend import SimulatedBackend
from optimizer.evaluator import Evaluator
from optimizer.objective import parse_objective
from optimizer.results import Provenance, TrialResult, TrialState
from optimizer.simulated_measurer import NO_QUALITY, SimulatedMeasurer, simulated_part
from optimizer.slo import parse_slos
from search_spaces.skus import load_skus
from workloads.records import read_records
from workloads.workload import Workload

SLOS = "ttft:p95<500ms"


@pytest.fixture
def default(tmp_path: Path) -> EngineConfig:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA_8B))
    values = {"model": str(folder), "engine": "simulated", "hardware": {"sku": "mi300x"}}
    return EngineConfig.model_validate(values)


def evaluate(folder: Path, config: EngineConfig, *, slos: str = SLOS, objective: str = "cost") -> TrialResult:
    skus, limits = load_skus(), parse_slos(slos)
    wish = parse_objective(objective)
    measurer = SimulatedMeasurer(
        backend=SimulatedBackend(skus), workload=chats(40), skus=skus, objective=wish, slos=limits
    )
    evaluator = Evaluator(measurer=measurer, study_dir=folder, objective=wish, slos=limits)
    evaluator.prepare(config)
    return evaluator.evaluate(0, config, origin="default")


def test_a_candidate_becomes_a_predicted_result_that_says_what_it_rests_on(
    default: EngineConfig, tmp_path: Path
) -> None:
    result = evaluate(tmp_path, default)
    assert (result.state, result.provenance, result.reason) == (TrialState.COMPLETE, Provenance.PREDICTED, "")
    assert result.basis.startswith("roofline: data sheet of mi300x")
    assert result.quality is None
    assert result.cost is not None
    assert (result.cost.sku, result.cost.capacity_basis) == ("mi300x", "simulated slo bisection")
    assert result.objective == pytest.approx(result.cost.usd_per_million_tokens.value)
    assert [outcome.slo for outcome in result.slos] == [SLOS]
    folder = tmp_path / result.directory
    assert len(read_records(folder / "records.parquet")) == result.metrics["completed"] == 40
    assert "predicted, not measured" in (folder / "notes.txt").read_text()
    assert not (folder / "engine.log").exists()


def test_what_does_not_fit_is_refused_with_the_nearest(default: EngineConfig, tmp_path: Path) -> None:
    result = evaluate(tmp_path, default.model_copy(update={"max_model_len": 4_000_000}))
    assert (result.state, result.failure) == (TrialState.REFUSED, FailureKind.OUT_OF_MEMORY)
    assert "max_model_len" in result.reason


def test_requests_that_never_fit_the_cache_fail_the_trial(default: EngineConfig, tmp_path: Path) -> None:
    small = default.model_copy(update={"max_model_len": 16, "kv_cache_memory_bytes": 2**21})
    result = evaluate(tmp_path, small)
    assert (result.state, result.failure) == (TrialState.FAILED, FailureKind.UNSUPPORTED)


def test_a_limit_on_quality_cannot_be_told(default: EngineConfig, tmp_path: Path) -> None:
    result = evaluate(tmp_path, default, slos="quality>=0.9")
    assert "quality was not measured" in result.reason
    assert not result.feasible


def test_every_study_says_that_quality_is_not_predicted() -> None:
    skus = load_skus()
    measurer = SimulatedMeasurer(
        backend=SimulatedBackend(skus), workload=chats(8), skus=skus, objective=parse_objective("cost"), slos=()
    )
    assert NO_QUALITY in measurer.notes


def test_a_long_workload_is_simulated_in_part() -> None:
    workload = chats(400)
    assert 20 <= len(simulated_part(workload, max_requests=50)) <= 80
    assert len(simulated_part(workload)) == 400


def test_turns_wait_for_replies_where_the_workload_says_so() -> None:
    skus = load_skus()

    def pace(workload: Workload) -> str:
        return SimulatedMeasurer(
            backend=SimulatedBackend(skus), workload=workload, skus=skus, objective=parse_objective("cost"), slos=()
        ).notes[0]

    assert "turns wait for the replies" in pace(sessions(4))
    assert "at the recorded arrivals" in pace(chats(8))
