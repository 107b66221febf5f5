"""`fopt run --engine vllm` on a real vLLM (CPU build): eight trials to a file from which `vllm serve` starts.

Needs FOPT_VLLM_PYTHON, the Python of its environment (`make test-vllm` makes one).
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

import psutil
import pytest
import yaml

from engine.process import ChildProcess, free_port, kept
from engine.vllm_server.environment import VllmEnvironment
from optimizer.results import TrialResult, TrialState

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1500)]
ROOT = Path(__file__).parents[3]
DEMO = ROOT / "workloads" / "demo"
# Eight configs: a study of eight trials measures two quality classes and three methods whatever it learns.
SPACE = """
fixed: {enforce_eager: true, kv_cache_memory_bytes: 268435456}
parameters:
  numbers:
    options:
      as_saved: {dtype: auto}
      float32: {dtype: float32}
  speculation:
    options:
      none: {speculative_config: null}
      ngram: {speculative_config.method: ngram, speculative_config.num_speculative_tokens: 4}
      draft_model:
        speculative_config.method: draft_model
        speculative_config.model: $draft
        speculative_config.num_speculative_tokens: 3
      medusa:
        speculative_config.method: medusa
        speculative_config.model: $medusa
        speculative_config.num_speculative_tokens: 3
"""
FOPT = [sys.executable, "-c", "from optimizer.cli import main; main()"]


@pytest.fixture(scope="module")
def vllm_python() -> str:
    python = os.environ.get("FOPT_VLLM_PYTHON")
    if not python:
        pytest.skip("FOPT_VLLM_PYTHON names no Python that has vLLM")
    return python


@pytest.fixture(scope="module")
def study(vllm_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an eight-trial study on the demo's traffic, thinned to what vLLM holds on one core."""
    folder = tmp_path_factory.mktemp("vllm-study")
    fopt("sample", DEMO / "workload.parquet", folder / "thin.parquet", "--seconds", 20, "--scale", 0.2)
    held = {name for name in os.listdir("/dev/shm") if name.startswith(("psm_", "sem.mp-"))}
    (folder / "eight.yaml").write_text(SPACE)
    options = [
        "--space",
        folder / "eight.yaml",
        "--model",
        DEMO / "models" / "target",
        "--engine",
        "vllm",
        "--vllm-python",
        vllm_python,
    ]
    options += ["--budget", "8trials", "--no-early-stop", "--name", "s", "--runs-dir", folder / "runs"]
    fopt("run", folder / "thin.parquet", "--objective", "latency", *options)
    assert not [child for child in psutil.Process().children(recursive=True) if "vllm" in " ".join(child.cmdline())]
    assert {name for name in os.listdir("/dev/shm") if name.startswith(("psm_", "sem.mp-"))} <= held
    return folder / "runs" / "s"


def fopt(*arguments: object) -> str:
    command = [*FOPT, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_eight_trials_measure_classes_and_methods_and_recommend(study: Path) -> None:
    texts = [path.read_text() for path in sorted(study.glob("trials/*/result.json"))]
    trials = [TrialResult.model_validate_json(text) for text in texts]
    assert len(trials) == 8
    measured = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    assert len(measured) == 8, [trial.reason for trial in trials]
    assert len({trial.config.quality_class() for trial in measured}) == 2
    methods = {trial.config.speculative_config.method for trial in measured if trial.config.speculative_config}
    assert methods == {"ngram", "draft_model", "medusa"}
    assert all(trial.quality is not None for trial in measured)
    best = yaml.safe_load((study / "best.yaml").read_text())
    assert best["config"]["engine"] == "vllm"
    assert (study / "report.md").exists()


@contextmanager
def started(command: list[str], variables: dict[str, str], log: Path, port: int) -> Iterator[str]:
    with ChildProcess(kept(command), log_path=log, env=variables, cwd=ROOT) as child:
        child.wait_healthy(lambda: is_healthy(port), timeout_s=300)
        yield f"http://127.0.0.1:{port}"


def is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
            return True
    except OSError:
        return False


def test_vllm_serve_starts_from_best_vllm_yaml_as_it_is(study: Path, vllm_python: str, tmp_path: Path) -> None:
    environment = VllmEnvironment(vllm_python)
    port = free_port()
    command = [*environment.command(), "--config", str(study / "best.vllm.yaml"), "--port", str(port)]
    with started(command, environment.variables, tmp_path / "log", port) as url:
        with urllib.request.urlopen(f"{url}/v1/models", timeout=10) as answer:
            [card] = json.loads(answer.read())["data"]
        assert card["id"].endswith("target")


def test_fopt_serve_starts_the_recommended_vllm_and_a_replay_reaches_it(
    study: Path, vllm_python: str, tmp_path: Path
) -> None:
    port = free_port()
    command = [*FOPT, "serve", str(study / "best.yaml"), "--port", str(port), "--vllm-python", vllm_python]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 300
        while not is_healthy(port):
            assert server.poll() is None, (tmp_path / "log").read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        thin = study.parent.parent / "thin.parquet"
        metrics = json.loads(fopt("replay", thin, "--url", f"http://127.0.0.1:{port}", "--limit", 6, "--json"))
        assert metrics["metrics"]["completed"] > 0
    finally:
        family = psutil.Process(server.pid).children(recursive=True)
        server.terminate()
        server.wait(60)
    psutil.wait_procs(family, timeout=10)
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
