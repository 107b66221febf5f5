"""The whole evaluation once through the real bundled engine, on a checkpoint of random weights."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from fakes.serving import UNPINNED
from traffic_cases import chats

from engine.bundled_backend import BundledBackend
from engine.config import EngineConfig
from optimizer.cost import recorded_load
from optimizer.engine_measurer import EngineMeasurer
from optimizer.evaluator import Evaluator
from optimizer.fidelity import Fidelity, choose_window
from optimizer.objective import parse_objective
from optimizer.quality.evaluate import QualityEvaluator
from optimizer.quality.reference import load_reference
from optimizer.results import TrialState
from optimizer.slo import parse_slos
from search_spaces.skus import load_skus

FIDELITY = Fidelity(
    window_s=1.0, warmup_requests=2, quality_requests=8, quality_requests_max=8, probe_s=1.5, verification_s=1.0
)


def tiny_checkpoint(folder: Path) -> Path:
    """The engine tests' own."""
    path = Path(__file__).parent.parent / "engine" / "tiny_checkpoint.py"
    spec = importlib.util.spec_from_file_location("tiny_checkpoint", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written: Path = module.write_tiny_checkpoint(folder)
    return written


@pytest.mark.usefixtures("never_late")
def test_a_real_engine_is_measured_scored_and_priced(tmp_path: Path) -> None:
    default = EngineConfig(model=str(tiny_checkpoint(tmp_path / "model")), max_num_seqs=8)
    workload = chats(24, rate_rps=12.0)
    measurer = EngineMeasurer(
        backend=BundledBackend(),
        study_dir=tmp_path / "study",
        window=choose_window(workload, FIDELITY.window_s, num_warmup=FIDELITY.warmup_requests),
        fidelity=FIDELITY,
        load=recorded_load(workload),
        quality=QualityEvaluator(
            directory=tmp_path / "study" / "quality",
            workload=workload,
            reference_class=default.quality_class(),
            num_requests=FIDELITY.quality_requests,
            num_requests_max=FIDELITY.quality_requests_max,
            placement=UNPINNED,
        ),
        objective=parse_objective("latency"),
        slos=parse_slos("quality>=0.99"),
        skus=load_skus(),
        placement=UNPINNED,
    )
    evaluator = Evaluator(
        measurer=measurer,
        study_dir=tmp_path / "study",
        objective=parse_objective("latency"),
        slos=parse_slos("quality>=0.99"),
    )
    result = evaluator.evaluate(0, default, origin="default")
    assert (result.state, result.reason) == (TrialState.COMPLETE, "")
    assert result.metrics["failed"] == 0
    assert result.cost is not None
    assert result.cost.capacity_rps.value > 0
    reference = load_reference(tmp_path / "study" / "quality" / "reference.npz")
    assert reference is not None
    for answer in reference.answers:
        assert answer.top is not None
        # what greedy decoding said is what teacher forcing finds likeliest, position by position
        assert np.mean(answer.top.top1() == np.array(answer.response_ids)) >= 0.9
