"""A study that was measured on a SKU corrects what is predicted for it, also for configs that it did not try."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_cases import write_model, write_study, write_traffic

from engine.config import EngineConfig, SpeculativeConfig
from engine.simulated_backend import SimulatedBackend
from engine.simulator.corrected import Correction
from engine.simulator.simulate import simulate
from optimizer.errors import OptimizerError
from optimizer.measured_corrections import StudyCorrection, study_correction
from optimizer.results import Provenance, TrialResult, TrialState
from optimizer.simulated_replay import simulated_replay
from search_spaces.skus import load_skus
from workloads.parquet import read_workload

SKU = "mi300x"
TRUTH = Correction(mixed_scale=1.4, mixed_floor_s=0.04, step_overhead_s=0.002, sequence_overhead_s=4e-5)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture
def traffic(tmp_path: Path) -> Path:
    return write_traffic(tmp_path / "traffic.parquet")


def tried(model: Path, *tokens_a_step: int, **fields: Any) -> list[EngineConfig]:
    values = {"model": str(model), "engine": "vllm", **fields}
    return [EngineConfig.model_validate({**values, "max_num_batched_tokens": tokens}) for tokens in tokens_a_step]


def corrected(study: Path, model: Path, traffic: Path) -> StudyCorrection:
    return study_correction(study, SKU, SimulatedBackend(load_skus()), str(model), read_workload(traffic))


def means(backend: SimulatedBackend, config: EngineConfig, traffic: Path) -> tuple[float, float]:
    serving = backend.serving(config)
    outcome = simulate(simulated_replay(read_workload(traffic)).traffic, serving.settings, serving.oracle)
    return float(outcome.ttft_s.mean()), float(np.nanmean(outcome.tpot_s))


def test_what_a_study_shows_holds_for_a_config_that_it_did_not_try(model: Path, traffic: Path, tmp_path: Path) -> None:
    configs = [*tried(model, 512, 8192, max_num_seqs=12), *tried(model, 512, 8192, max_num_seqs=64)]
    found = corrected(write_study(tmp_path / "study", traffic, configs, sku=SKU, truth=TRUTH), model, traffic)
    assert "step times of mi300x are corrected by 4 trials of study: mean TTFT and TPOT were off by" in found.note
    plain = SimulatedBackend(load_skus())
    (other,) = tried(model, 1024, max_num_seqs=24, hardware={"sku": SKU, "count": 1})
    truly = means(plain.corrected_by({SKU: TRUTH}), other, traffic)
    before = np.divide(means(plain, other, traffic), truly)
    after = np.divide(means(plain.corrected_by({SKU: found.correction}), other, traffic), truly)
    assert (before < 0.75).all()
    np.testing.assert_allclose(after, 1, rtol=0.1)
    sentence = plain.corrected_by({SKU: found.correction}).serving(other).oracle.provenance.sentence()
    assert "corrected by a fit on 4 trials of study, measured on mi300x (error not known)" in sentence


def test_shared_prefixes_are_those_of_the_workload_that_the_study_replayed(
    model: Path, traffic: Path, tmp_path: Path
) -> None:
    study = write_study(tmp_path / "study", traffic, tried(model, 512, 2048), sku=SKU, truth=TRUTH)
    other = write_traffic(tmp_path / "other.parquet", num_requests=20)
    with pytest.raises(OptimizerError, match="requests are not in this workload, so what its prefix cache held"):
        corrected(study, model, other)
    bare = tried(model, 512, 2048, enable_prefix_caching=False)
    study = write_study(tmp_path / "bare", traffic, bare, sku=SKU, truth=TRUTH)
    assert corrected(study, model, other).correction.mixed_scale > 1


@pytest.mark.parametrize(
    ("fields", "change", "words"),
    [
        ({}, {"state": TrialState.FAILED}, "0 of 0 measured trials"),
        ({}, {"provenance": Provenance.PREDICTED}, "0 of 0 measured trials"),
        ({}, {"reason": "the client was late"}, "0 of 0 measured trials"),
        ({}, {"metrics": {}}, "0 of 2 measured trials .* it has no mean TTFT and TPOT"),
        ({"pipeline_parallel_size": 2}, {}, "pipeline_parallel_size 2 is not simulated"),
        ({"speculative_config": SpeculativeConfig(method="ngram", num_speculative_tokens=2)}, {}, "how much was accep"),
        ({"model": "elsewhere/other"}, {}, "it served other, not model"),
    ],
)
def test_trials_that_say_nothing_are_left_out_and_too_few_are_refused(
    model: Path, traffic: Path, tmp_path: Path, fields: dict[str, Any], change: dict[str, Any], words: str
) -> None:
    study = write_study(tmp_path / "study", traffic, tried(model, 512, 2048), sku=SKU, truth=TRUTH, **change)
    for path in study.glob("trials/*/result.json") if fields else ():
        result = TrialResult.model_validate_json(path.read_text())
        path.write_text(result.model_copy(update={"config": result.config.model_copy(update=fields)}).model_dump_json())
    with pytest.raises(OptimizerError, match=words):
        corrected(study, model, traffic)


def test_a_folder_that_is_no_study_is_told(model: Path, traffic: Path, tmp_path: Path) -> None:
    with pytest.raises(OptimizerError, match="no study's folder"):
        corrected(tmp_path / "none", model, traffic)
    (tmp_path / "odd" / "trials" / "0000").mkdir(parents=True)
    (tmp_path / "odd" / "trials" / "0000" / "result.json").write_text("{}")
    with pytest.raises(OptimizerError, match="is no trial's result"):
        corrected(tmp_path / "odd", model, traffic)
