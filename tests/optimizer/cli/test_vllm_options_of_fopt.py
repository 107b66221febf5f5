"""`--engine vllm` and `--vllm-python`: which space, which backend, and one line where there is no vLLM."""

import sys
from pathlib import Path

import pytest
import yaml

from engine.backend import EngineError
from engine.vllm_server.backend import VllmBackend
from optimizer.cli import main
from optimizer.cli.engines import make_backend, own_space, space_values
from optimizer.placement import Placement

ROOT = Path(__file__).parents[3]
FAKE = ROOT / "tests" / "engine" / "vllm_server" / "fake_vllm.py"
DEMO = ROOT / "workloads" / "demo"


@pytest.fixture
def fake_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n')
    script.chmod(0o755)
    return script


def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    monkeypatch.setattr(sys, "argv", ["fopt", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err
    assert stop.value.code == 2, said
    [line] = [line for line in said.splitlines() if not line.startswith("asking vLLM 0.32.0 for its options")]
    assert line.startswith("fopt: error: ")
    return line


def test_a_cpu_build_gets_its_own_space(fake_python: Path) -> None:
    assert own_space("vllm", fake_python) == "vllm-cpu"
    assert own_space("bundled", None) is None
    values = space_values("vllm", fake_python, None)
    assert values.pop("suffix") is None, "the fake environment has no arctic-inference"
    assert values.pop("fp8_kv") == "fp8", "the stored options are those of a CPU with AVX-512"
    assert set(values.values()) == {None}, "nobody makes quantized checkpoints"
    assert space_values("vllm", fake_python, Path("python"))["int8"] == "int8"
    assert space_values("bundled", None, None) == {}
    with pytest.raises(EngineError, match="has no vLLM"):
        own_space("vllm", Path(sys.executable))


def test_the_backend_gets_the_placement_and_the_python(fake_python: Path) -> None:
    placement = Placement(engine_cores=(0,), client_cores=(1,), devices=("2", "3"))
    backend = make_backend("vllm", placement, vllm_python=fake_python)
    assert isinstance(backend, VllmBackend)
    assert backend.environment.python == str(fake_python)
    assert backend._cores == (0,)
    assert backend._devices.devices == ("2", "3")


def test_a_python_without_vllm_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--engine", "vllm", "--vllm-python", sys.executable, "--runs-dir", tmp_path / "runs"]
    assert "has no vLLM" in told(monkeypatch, capsys, "run", DEMO / "workload.parquet", *options)
    assert not (tmp_path / "runs").exists()


def test_a_config_that_vllm_refuses_is_one_line_before_anything_is_written(
    fake_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base.yaml"
    base.write_text(yaml.safe_dump({"model": "m", "engine": "vllm", "engine_args": {"turbo-mode": True}}))
    options = ["--engine", "vllm", "--vllm-python", fake_python, "--base", base, "--runs-dir", tmp_path / "runs"]
    options += ["--model", DEMO / "models" / "target"]
    said = told(monkeypatch, capsys, "run", DEMO / "workload.parquet", *options)
    assert "vLLM 0.32.0 (this installation) has no option --turbo-mode" in said
    assert not (tmp_path / "runs").exists()


def test_serve_refuses_in_one_line_too(
    fake_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    model = str(DEMO / "models" / "target")
    file.write_text(yaml.safe_dump({"model": model, "engine": "vllm", "block_size": 24}))
    assert "multiples of 32" in told(monkeypatch, capsys, "serve", file, "--vllm-python", fake_python)


def test_devices_for_a_cpu_build_are_one_line(
    fake_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    options = ["--engine", "vllm", "--vllm-python", fake_python, "--devices", "1", "--runs-dir", tmp_path / "runs"]
    assert "no effect on vLLM's CPU build" in told(monkeypatch, capsys, "run", DEMO / "workload.parquet", *options)
    assert not (tmp_path / "runs").exists()
