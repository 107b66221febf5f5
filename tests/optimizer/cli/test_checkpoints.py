"""Quantized checkpoints from a study to what serves and verifies: calibrated, named by hash, found again, made again.

vLLM and llm-compressor are stand-ins.
"""

import json
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from engine.config import EngineConfig, Quantization
from optimizer.cli import main
from optimizer.cli.checkpoints import deployed_checkpoints, study_checkpoints
from optimizer.errors import OptimizerError
from optimizer.results import TrialResult
from reports.deployment import bare_deployment, read_deployment
from workloads.metadata import Source, WorkloadMetadata
from workloads.parquet import read_workload, write_workload
from workloads.request import Request
from workloads.sampling import split_by_session
from workloads.workload import Workload

sys.path.append(str(Path(__file__).parents[2] / "engine"))
sys.path.append(str(Path(__file__).parents[2] / "engine" / "artifacts"))
from fake_quantizer import FakeQuantizer
from tiny_checkpoint import write_tiny_checkpoint

ROOT = Path(__file__).resolve().parents[3]
FAKE_VLLM = ROOT / "tests" / "engine" / "vllm_server" / "fake_vllm.py"
METADATA = WorkloadMetadata(name="ids", source=Source(format="test"))
Runs = Callable[..., tuple[int, str, str]]


def requests(num: int) -> list[Request]:
    """Prompts of token ids, no two alike."""
    ids = np.random.default_rng(0).integers(5, 50, (num, 40)).tolist()
    return [
        Request(
            request_id=f"r{i}", arrival_s=i * 0.05, prompt_token_ids=tuple(prompt), input_tokens=40, output_tokens=4
        )
        for i, prompt in enumerate(ids)
    ]


@pytest.fixture
def traffic(tmp_path: Path) -> Path:
    write_workload(tmp_path / "traffic.parquet", requests(40), METADATA)
    return tmp_path / "traffic.parquet"


@pytest.fixture
def quantizer(tmp_path: Path) -> FakeQuantizer:
    return FakeQuantizer(tmp_path / "quantizer")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Runs:
    """Runs `fopt` here with a cache of its own: exit status, stdout and stderr."""
    monkeypatch.setenv("FOPT_ARTIFACTS", str(tmp_path / "store"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fopt", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        told = capsys.readouterr()
        return int(stop.value.code or 0), told.out, told.err

    return run


@pytest.fixture
def study(traffic: Path, tmp_path: Path, quantizer: FakeQuantizer, runs: Runs, never_late: None) -> Path:  # noqa: ARG001
    """A study of one trial, whose config has int4 weights, on the first part of the traffic."""
    vllm = tmp_path / "python"
    vllm.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE_VLLM}" "$@"\n')
    vllm.chmod(0o755)
    model = write_tiny_checkpoint(tmp_path / "model")
    base = {"model": str(model), "engine": "vllm", "quantization": {"weights": "int4_g32"}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    (tmp_path / "space.yaml").write_text("parameters: {max_num_seqs: [64]}\n")
    options = ["--engine", "vllm", "--vllm-python", vllm, "--quantizer-python", quantizer.python]
    options += ["--space", tmp_path / "space.yaml", "--base", tmp_path / "base.yaml", "--budget", "5s"]
    options += ["--runs-dir", tmp_path / "runs", "--name", "s", "--no-verify", "--slo", "e2el:p95<60s"]
    status, _, err = runs("run", traffic, *options)
    assert status == 0, err
    return tmp_path / "runs" / "s"


def test_a_study_names_its_weights_and_they_are_found_made_again_and_told_apart(
    study: Path, traffic: Path, quantizer: FakeQuantizer, runs: Runs
) -> None:
    trial = TrialResult.model_validate_json((study / "trials" / "0000" / "result.json").read_text())
    assert trial.weights is not None
    folder, made = Path(trial.weights.folder), trial.weights.made_of
    assert folder.name == made.key
    assert made.recipe == "int4_g32 (gptq)"
    train = split_by_session(read_workload(traffic), 0.35).train
    assert made.calibration is not None
    assert made.calibration.workload_fingerprint == train.fingerprint
    seen = [json.loads(line)["token_ids"] for line in quantizer.calibration.splitlines()]
    assert seen == [list(request.prompt_token_ids or ()) for request in train], "all of the train part and no more"
    best = study / "best.yaml"
    [reference] = [each for each in yaml.safe_load(best.read_text())["artifacts"] if "made_of" in each]
    assert (reference["role"], reference["sha256"]) == ("quantized weights", trial.weights.content_sha256)
    exported = yaml.safe_load((study / "best.vllm.yaml").read_text())
    assert exported["model"] == str(folder)
    assert exported["served-model-name"] == trial.config.model

    assert given(best) == folder
    shutil.rmtree(folder)
    serve = ["serve", best, "--vllm-python", study.parent.parent / "python", "--quantizer-python", quantizer.python]
    status, _, err = runs(*serve)
    assert status == 2
    assert err.startswith(f"fopt: error: the measured int4_g32 (gptq) weights (sha256 {reference['sha256'][:12]}) are")
    told = shlex.split(err.split("Make them again with: fopt ")[1])
    again = ["artifacts", "rebuild", best, "--quantizer-python", quantizer.python]
    assert told == [str(each) for each in again]
    status, out, err = runs(*told)
    assert (status, out.strip()) == (0, str(folder)), err
    assert given(best) == folder

    shutil.rmtree(folder)
    traffic = traffic.rename(traffic.with_name("moved.parquet"))
    assert f"{best} --calibration WORKLOAD --quantizer-python {quantizer.python}, where WORKLOAD is" in runs(*serve)[2]
    assert runs(*again)[2].startswith("fopt: error: these weights were calibrated with a workload")
    write_workload(traffic.with_name("other.parquet"), requests(30), METADATA)
    assert "is not the workload that" in runs(*again, "--calibration", traffic.with_name("other.parquet"))[2]
    status, out, err = runs(*again, "--calibration", traffic)
    assert (status, out.strip()) == (0, str(folder)), err
    assert given(best) == folder

    shutil.rmtree(folder)
    quantizer.behave("build otherwise")
    status, _, err = runs(*again, "--calibration", traffic)
    assert status == 1
    assert "the rebuilt weights are not the measured ones" in " ".join(err.split())
    with pytest.raises(OptimizerError, match="has others of the same ingredients"):
        given(best)


def given(best: Path) -> Path:
    """What serving and verifying load, with no quantizer at hand."""
    found = read_deployment(best, verify=True)
    give = deployed_checkpoints(found, best, None)
    assert give is not None
    return give(found.config, report=lambda _text: None)


def test_a_file_without_named_weights_has_them_made_where_that_is_possible(
    tmp_path: Path, quantizer: FakeQuantizer, monkeypatch: pytest.MonkeyPatch, runs: Runs
) -> None:
    monkeypatch.setenv("FOPT_ARTIFACTS", str(tmp_path / "store"))
    model = write_tiny_checkpoint(tmp_path / "model")
    config = EngineConfig(model=str(model), engine="vllm", quantization=Quantization(weights="int8"))
    assert deployed_checkpoints(bare_deployment(config), None, None) is None
    give = deployed_checkpoints(bare_deployment(config), None, Path(quantizer.python))
    assert give is not None
    assert give(config, report=lambda _text: None).parent == tmp_path / "store"
    (tmp_path / "bare.yaml").write_text(yaml.safe_dump({"model": str(model)}))
    assert "names no quantized weights" in runs("artifacts", "rebuild", tmp_path / "bare.yaml")[2]


def test_traffic_without_prompts_rounds_and_says_so(tmp_path: Path) -> None:
    workload = Workload.from_requests([Request(request_id="a", arrival_s=0.0, input_tokens=5)], METADATA)
    with study_checkpoints(workload, tmp_path / "python", seed=0) as found:
        assert found.give is not None
        assert "rounded to nearest" in found.notes[0]
