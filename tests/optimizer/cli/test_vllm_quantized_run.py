"""Quantized checkpoints on a real vLLM: built, measured, named by hash, and the very ones that are served afterwards.

Needs FOPT_VLLM_PYTHON and FOPT_QUANTIZER_PYTHON, the Pythons of their environments (`make test-quantizer` makes both).
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from engine.artifacts.content_hash import combined_sha256, file_sha256
from engine.artifacts.provenance import FILE
from engine.process import ChildProcess, free_port, kept
from engine.shared_memory import FOLDER
from engine.vllm_server.environment import VllmEnvironment
from optimizer.results import TrialResult, TrialState
from reports.deployment import read_deployment

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1500)]
ROOT = Path(__file__).parents[3]
DEMO = ROOT / "workloads" / "demo"
TARGET = DEMO / "models" / "target"
# Every config is quantized, so that the recommended one is; w4a16 vanishes where the CPU has no kernel for it.
SPACE = """
fixed: {enforce_eager: true, kv_cache_memory_bytes: 268435456}
parameters:
  weights:
    options:
      w8a8: {quantization.weights: $int8, quantization.activations: int8, quantization.overrides: null}
      mixed: {quantization.weights: $int8, quantization.activations: int8, quantization.overrides: "*.5.*=bf16"}
      w4a16: {quantization.weights: $int4_g32, quantization.activations: bf16, quantization.overrides: null}
"""
FOPT = [sys.executable, "-c", "from optimizer.cli import main; main()"]


def python_of(variable: str) -> Path:
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"{variable} is not set: quantized checkpoints need vLLM and llm-compressor (make test-quantizer)")
    return Path(python)


def family() -> list[list[str]]:
    """Command lines of what this process started and what is left of it."""
    running = [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    return [process.cmdline() for process in running]


def shared_memory() -> set[str]:
    return {path.name for path in FOLDER.iterdir() if path.name.startswith(("psm_", "sem.mp-", "vllm"))}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a study on the demo's traffic, thinned to what vLLM holds on one core; nothing is left of it."""
    vllm, quantizer = python_of("FOPT_VLLM_PYTHON"), python_of("FOPT_QUANTIZER_PYTHON")
    folder = tmp_path_factory.mktemp("quantized")
    held = shared_memory()
    (folder / "space.yaml").write_text(SPACE)
    int8 = {"weights": "int8", "activations": "int8"}
    base = {"model": str(TARGET), "engine": "vllm", "quantization": int8}
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOPT_ARTIFACTS", str(folder / "store"))
        fopt("sample", DEMO / "workload.parquet", folder / "thin.parquet", "--seconds", 12, "--scale", 0.2)
        options = ["--engine", "vllm", "--vllm-python", vllm, "--quantizer-python", quantizer, "--no-verify"]
        options += ["--space", folder / "space.yaml", "--base", folder / "base.yaml", "--budget", "3trials"]
        options += ["--slo", "quality>=0", "--no-early-stop", "--name", "s", "--runs-dir", folder / "runs"]
        fopt("run", folder / "thin.parquet", *options)
        yield folder / "runs" / "s"
    assert family() == []
    assert shared_memory() <= held


def fopt(*arguments: object) -> str:
    done = subprocess.run([*FOPT, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def trials_of(study: Path) -> list[TrialResult]:
    texts = [path.read_text() for path in sorted(study.glob("trials/*/result.json"))]
    return [TrialResult.model_validate_json(text) for text in texts]


def content_of(folder: Path) -> str:
    """Recomputed from the files, as the store says that it does."""
    files = [path for path in folder.iterdir() if path.name != FILE]
    return combined_sha256({path.name: file_sha256(path) for path in files})


def test_each_quantized_class_is_measured_from_weights_named_by_hash(study: Path) -> None:
    trials = trials_of(study)
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}, [trial.reason for trial in trials]
    has_int4 = VllmEnvironment(python_of("FOPT_VLLM_PYTHON")).known_options.has_int4
    recipes = {trial.weights.made_of.recipe for trial in trials if trial.weights}
    assert len(recipes) == len(trials) == (3 if has_int4 else 2), "one checkpoint each"
    assert ("int4_g32 (gptq)" in recipes) == has_int4
    assert len({trial.config.quality_class() for trial in trials}) == len(trials)
    assert all(trial.quality is not None and trial.quality.kl_nats is not None for trial in trials)
    for trial in trials:
        assert trial.weights is not None
        assert content_of(Path(trial.weights.folder)) == trial.weights.content_sha256


def test_what_is_exported_is_what_was_measured(study: Path) -> None:
    best = read_deployment(study / "best.yaml", verify=True)
    trial = trials_of(study)[best.trial]
    assert best.config.quantization.weights != "bf16"
    assert best.weights == trial.weights is not None
    measured = yaml.safe_load((study / "trials" / f"{trial.number:04}" / "engine.yaml").read_text())
    exported = yaml.safe_load((study / "best.vllm.yaml").read_text())
    assert exported.pop("served-model-name") == best.config.model
    assert exported == measured


def test_fopt_serve_and_vllm_serve_answer_alike_from_those_weights(study: Path, tmp_path: Path) -> None:
    vllm = python_of("FOPT_VLLM_PYTHON")
    environment = VllmEnvironment(vllm)
    serving = [*FOPT, "serve", str(study / "best.yaml"), "--vllm-python", str(vllm)]
    config = str(study / "best.vllm.yaml")
    alone = kept([*environment.command(own_cache=True), "--config", config])
    before = family()
    by_fopt = answers_of(serving, {}, tmp_path / "fopt.log")
    by_vllm = answers_of(alone, environment.variables, tmp_path / "vllm.log")
    assert by_fopt == by_vllm
    assert len({tuple(answer) for answer in by_fopt}) == len(PROMPTS), "an answer to each prompt"
    assert family() == before
    made = yaml.safe_load(Path(config).read_text())["model"]
    assert all(made in (tmp_path / name).read_text() for name in ("fopt.log", "vllm.log")), "what vLLM says it loads"


PROMPTS = ([5, 6, 7, 8, 9], list(range(40, 80)), list(range(900, 700, -3)))


def answers_of(command: list[str], variables: dict[str, str], log: Path) -> list[list[int]]:
    """Greedy token ids for each prompt, one after another, from a server that then ends."""
    port = free_port()
    with started([*command, "--port", str(port)], variables, log, port) as url:
        [card] = ask(f"{url}/v1/models")["data"]
        body = {"model": card["id"], "max_tokens": 24, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
        replies = [ask(f"{url}/v1/completions", {**body, "prompt": prompt}) for prompt in PROMPTS]
    return [reply["choices"][0]["token_ids"] for reply in replies]


@contextmanager
def started(command: list[str], variables: dict[str, str], log: Path, port: int) -> Iterator[str]:
    url = f"http://127.0.0.1:{port}"
    with ChildProcess(command, log_path=log, env=variables, cwd=ROOT) as child:
        child.wait_healthy(lambda: is_healthy(url), timeout_s=300)
        yield url


def is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=1):
            return True
    except OSError:
        time.sleep(0.1)
        return False


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())
