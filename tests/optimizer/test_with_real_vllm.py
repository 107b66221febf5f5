"""A study on a real vLLM (CPU build) whose engines are killed, stalled and starved: each ends as what it is.

Needs FOPT_VLLM_PYTHON, the Python of its environment (`make test-vllm` makes one).
"""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.backend import FailureKind
from engine.config import EngineConfig
from engine.vllm_server.backend import VllmBackend
from optimizer.cost import recorded_load
from optimizer.engine_measurer import EngineMeasurer
from optimizer.evaluator import Evaluator
from optimizer.fidelity import Fidelity, choose_window
from optimizer.objective import parse_objective
from optimizer.placement import plan_placement
from optimizer.results import TrialResult, TrialState
from search_spaces.skus import load_skus
from workloads.parquet import WorkloadFile
from workloads.representative_sample import SampleSize, sample_file

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
DEMO = Path(__file__).resolve().parents[2] / "workloads" / "demo"
FIDELITY = Fidelity(
    window_s=4.0, warmup_requests=2, quality_requests=8, quality_requests_max=8, probe_s=2, verification_s=4
)


@pytest.fixture(scope="module")
def backend() -> VllmBackend:
    python = os.environ.get("FOPT_VLLM_PYTHON")
    if not python:
        pytest.skip("FOPT_VLLM_PYTHON names no Python that has vLLM")
    cores = plan_placement().engine_cores
    return VllmBackend(python=python, cpus=frozenset(cores) if cores else None)


@pytest.fixture(scope="module")
def default() -> EngineConfig:
    return EngineConfig(
        model=str(DEMO / "models" / "target"), engine="vllm", enforce_eager=True, kv_cache_memory_bytes=2**28
    )


def family() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]


def signal_cores(number: signal.Signals) -> None:
    cores = [process for process in family() if any("EngineCore" in part for part in process.cmdline())]
    assert cores
    for process in cores:
        process.send_signal(number)


def once(action: Callable[[], None], when: str) -> Callable[[str], None]:
    """A report that acts when a trial first says `when`."""
    done: list[str] = []

    def report(phase: str) -> None:
        if phase.startswith(when) and not done:
            done.append(phase)
            action()

    return report


def test_engines_that_fail_are_results_and_the_study_goes_on(
    backend: VllmBackend, default: EngineConfig, tmp_path: Path
) -> None:
    recorded = WorkloadFile(DEMO / "workload.parquet")
    workload = sample_file(recorded, SampleSize(seconds=12, scale=0.2)).workload
    objective = parse_objective("latency")
    measurer = EngineMeasurer(
        backend=backend,
        study_dir=tmp_path,
        window=choose_window(workload, FIDELITY.window_s, num_warmup=FIDELITY.warmup_requests),
        fidelity=FIDELITY,
        load=recorded_load(workload),
        quality=None,
        objective=objective,
        slos=(),
        skus=load_skus(),
        placement=plan_placement(),
        hang_s=8,
        early_stop=False,
    )
    evaluator = Evaluator(measurer=measurer, study_dir=tmp_path, objective=objective, slos=())
    results: list[TrialResult] = []

    def trial(report: Callable[[str], None] | None = None, **change: Any) -> TrialResult:
        config = EngineConfig.model_validate(default.model_dump() | change)
        held = set(os.listdir("/dev/shm"))
        result = evaluator.evaluate(len(results), config, origin="test", report=report or (lambda _: None))
        assert family() == [], "nothing runs after a trial"
        assert {name for name in os.listdir("/dev/shm") if name.startswith("psm_")} <= held
        results.append(result)
        return result

    assert trial().state is TrialState.COMPLETE

    killed = trial(once(lambda: signal_cores(signal.SIGKILL), "replaying 3/"))
    assert (killed.state, killed.failure) == (TrialState.FAILED, FailureKind.DIED), killed.reason

    stalled = trial(once(lambda: signal_cores(signal.SIGSTOP), "replaying 3/"))
    assert (stalled.state, stalled.failure) == (TrialState.FAILED, FailureKind.HANG), stalled.reason

    full = trial(kv_cache_memory_bytes=4 * 2**20, max_num_seqs=64)  # little more than one request's
    assert full.state is TrialState.COMPLETE, full.reason
    assert full.metrics["num_preemptions"] > 0 or full.metrics["p95_ttft_ms"] > results[0].metrics["p95_ttft_ms"]

    refused = trial(engine_args={"enable-turbo": True})
    assert (refused.state, refused.failure) == (TrialState.REFUSED, FailureKind.UNSUPPORTED)
    assert "has no option --enable-turbo" in refused.reason

    lacking = trial(model=str(checkpoint_without("model.layers.3.mlp.down_proj.weight", tmp_path / "lacking")))
    assert (lacking.state, lacking.failure) == (TrialState.REFUSED, FailureKind.BAD_CHECKPOINT)
    assert "model.layers.3.mlp.down_proj" in lacking.reason

    assert trial(max_num_seqs=32).state is TrialState.COMPLETE


def checkpoint_without(tensor: str, folder: Path) -> Path:
    """The demo's model without one tensor, its file rewritten by hand: numpy has no bfloat16."""
    shutil.copytree(DEMO / "models" / "target", folder)
    content = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    del header[tensor]
    tensors, kept = {}, b""
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        tensors[name] = {**entry, "data_offsets": [len(kept), len(kept) + end - begin]}
        kept += body[begin:end]
    written = json.dumps(tensors).encode()
    (folder / "model.safetensors").write_bytes(len(written).to_bytes(8, "little") + written + kept)
    return folder
