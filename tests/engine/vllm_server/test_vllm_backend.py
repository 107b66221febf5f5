"""The vLLM engine against a fake `vllm`: the contract, the environment it is given, its failures and its end."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from backend_contract import BackendContract, descendants, post
from test_process import wait_gone

from engine.backend import Backend, EngineError, FailureKind
from engine.config import EngineConfig
from engine.registry import BACKENDS
from engine.shared_memory import FOLDER
from engine.vllm_server.backend import VllmBackend

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def backend(fake_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Backend:
    return VllmBackend(python=fake_python, cache=tmp_path_factory.mktemp("cache"), launch_timeout_s=60)


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> EngineConfig:
    return EngineConfig(model=str(tiny_model), engine="vllm")


def blocks_of(log: Path) -> list[Path]:
    """The shared memory of a front end and its engine core, by what they said."""
    found = said_blocks(log)
    assert len(found) == 2
    return found


def said_blocks(log: Path) -> list[Path]:
    return [FOLDER / line.split()[1] for line in log.read_text().splitlines() if line.startswith("block ")]


class TestVllmBackend(BackendContract):
    pass


def faulty(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setenv("FAKE_VLLM", fault)


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("oom", FailureKind.OUT_OF_MEMORY, "larger than the available KV cache memory"),
        ("kernel", FailureKind.MISSING_KERNEL, "Failed to find a kernel"),
        ("dies", FailureKind.DIED, "Engine core initialization failed"),
    ],
)
def test_a_launch_that_fails_has_the_kind_that_the_log_says(
    backend: Backend,
    config: EngineConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    kind: FailureKind,
    words: str,
) -> None:
    faulty(monkeypatch, fault)
    launch = backend.launch(config, log_path=tmp_path / "engine.log")
    with pytest.raises(EngineError, match=words) as caught, launch:
        pass
    assert caught.value.kind is kind
    assert "exit status 1" in str(caught.value)


def test_an_engine_that_is_never_healthy_is_a_timeout_and_leaves_nothing(
    fake_python: Path, config: EngineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty(monkeypatch, "mute")
    before = descendants()
    backend = VllmBackend(python=fake_python, cache=tmp_path, launch_timeout_s=2)
    with pytest.raises(EngineError) as caught, backend.launch(config, log_path=tmp_path / "engine.log"):
        pass
    assert caught.value.kind is FailureKind.TIMEOUT
    assert descendants() == before
    assert not any(block.exists() for block in said_blocks(tmp_path / "engine.log")), "if it came so far"


@pytest.mark.parametrize("fault", ["dead_core", "gone_listener"])
def test_an_engine_core_that_dies_under_a_living_front_end_is_noticed(
    fault: str, backend: Backend, config: EngineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty(monkeypatch, fault)
    with backend.launch(config, log_path=tmp_path / "engine.log") as server:
        said = (tmp_path / "engine.log").read_text()
        os.kill(int(said.split("core ")[1].split()[0]), signal.SIGKILL)
        while server.is_healthy():
            time.sleep(0.01)
        with pytest.raises(EngineError, match="EngineDeadError") as caught:
            server.check_alive()
        assert caught.value.kind is FailureKind.DIED
    assert not any(block.exists() for block in blocks_of(tmp_path / "engine.log"))


def test_a_stop_that_is_ignored_ends_in_sigkill_and_removes_the_shared_memory(
    fake_python: Path, config: EngineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty(monkeypatch, "stubborn")
    before = descendants()
    with VllmBackend(python=fake_python, cache=tmp_path).launch(config, log_path=tmp_path / "engine.log") as server:
        assert all(block.exists() for block in blocks_of(tmp_path / "engine.log"))
        server._child.stop(grace_s=0.2)
    assert descendants() == before
    assert not any(block.exists() for block in blocks_of(tmp_path / "engine.log"))


def test_nothing_is_left_when_fopt_is_killed(fake_python: Path, config: EngineConfig, tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from engine.vllm_server.backend import VllmBackend\n"
        "from engine.config import EngineConfig\n"
        f"backend = VllmBackend(python={str(fake_python)!r}, cache=Path('.'))\n"
        f"config = EngineConfig(model={config.model!r}, engine='vllm')\n"
        "with backend.launch(config, log_path=Path('engine.log')) as server:\n"
        "    print(server.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        keeper = int(parent.stdout.readline())
        assert all(block.exists() for block in blocks_of(tmp_path / "engine.log"))
        parent.kill()
    wait_gone(keeper)
    assert not any(block.exists() for block in blocks_of(tmp_path / "engine.log"))
    scratch = (tmp_path / "engine.log").read_text().splitlines()[0].removeprefix("scratch ")
    assert "fopt-vllm-" in scratch
    assert not Path(scratch).exists()


def test_each_launch_gets_its_own_options_and_variables(
    fake_python: Path, config: EngineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    cpu = min(os.sched_getaffinity(0))
    backend = VllmBackend(python=fake_python, cpus=frozenset({cpu}), cache=tmp_path, api_key="secret")
    wanted = config.model_copy(update={"num_threads": 1, "max_num_seqs": 8})
    with backend.launch(wanted, log_path=tmp_path / "engine.log") as server:
        assert server.model_name == Path(config.model).name
        assert post(server, "/v1/completions", {"prompt": [1, 2]})["choices"]
    scratch, said, *_ = (tmp_path / "engine.log").read_text().splitlines()
    assert not Path(scratch.removeprefix("scratch ")).exists()
    variables = json.loads(said.removeprefix("environment "))
    assert variables == {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": str(cpu),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_API_KEY": "secret",
    }
    options = yaml.safe_load((tmp_path / "engine.yaml").read_text())
    assert options["model"] == config.model
    assert options["max-num-seqs"] == 8
    assert "block-size" not in options, "16 is left to vLLM, which has 128 on CPUs"


def test_quantized_weights_come_from_a_checkpoint_and_keep_the_models_name(
    fake_python: Path, config: EngineConfig, tmp_path: Path, tiny_draft: Path
) -> None:
    quantized = EngineConfig.model_validate(
        config.model_dump() | {"quantization": {"weights": "int8", "activations": "int8"}}
    )
    [refusal] = VllmBackend(python=fake_python, cache=tmp_path).check(quantized)
    assert "need a checkpoint whose weights are quantized already" in refusal.reason

    def make(config: EngineConfig, *, report: Callable[[str], None]) -> Path:
        report(f"rounding to {config.quantization.weights}")
        return tiny_draft

    backend = VllmBackend(python=fake_python, cache=tmp_path, checkpoints=make)
    assert backend.check(quantized) == []
    with backend.launch(quantized, log_path=tmp_path / "engine.log") as server:
        assert server.model_name == Path(config.model).name
    assert yaml.safe_load((tmp_path / "engine.yaml").read_text())["model"] == str(tiny_draft)
    assert (tmp_path / "engine.log").read_text().startswith("fopt: quantized checkpoint: rounding to int8\nscratch ")


def devices_of(log: Path) -> str | None:
    """What a launch said of its environment."""
    [said] = [line for line in log.read_text().splitlines() if line.startswith("environment ")]
    return json.loads(said.removeprefix("environment ")).get("CUDA_VISIBLE_DEVICES")


def test_each_launch_gets_the_first_free_devices(
    fake_python: Path, config: EngineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM_BUILD", "gpu")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    backend = VllmBackend(python=fake_python, cache=tmp_path, devices=("2", "3", "5"), launch_timeout_s=60)
    two = config.model_copy(update={"pipeline_parallel_size": 2})
    with backend.launch(config, log_path=tmp_path / "one.log"):
        assert backend.check(two) == []
        with backend.launch(two, log_path=tmp_path / "two.log"):
            [refusal] = backend.check(config)
            assert refusal.kind is FailureKind.OUT_OF_MEMORY, "others hold them: it fits alone"
            assert "0 of 3 are free" in refusal.reason
    assert (devices_of(tmp_path / "one.log"), devices_of(tmp_path / "two.log")) == ("2", "3,5")
    assert backend.check(config) == []
    [refusal] = backend.check(config.model_copy(update={"tensor_parallel_size": 4}))
    assert "the config needs 4 devices, 3 may be used here (2, 3, 5)" in refusal.reason


def test_ray_and_a_cpu_build_are_given_no_devices(
    fake_python: Path, config: EngineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    over_ray = config.model_copy(update={"distributed_executor_backend": "ray", "data_parallel_size": 8})
    with VllmBackend(python=fake_python, cache=tmp_path, devices=("2",), launch_timeout_s=60).launch(
        config, log_path=tmp_path / "cpu.log"
    ):
        assert devices_of(tmp_path / "cpu.log") is None
    monkeypatch.setenv("FAKE_VLLM_BUILD", "gpu")
    backend = VllmBackend(python=fake_python, cache=tmp_path / "gpu", devices=("2",), launch_timeout_s=60)
    assert backend.check(over_ray) == []
    with backend.launch(over_ray, log_path=tmp_path / "ray.log"):
        assert devices_of(tmp_path / "ray.log") is None


def test_a_port_in_use_is_said_before_launching(backend: Backend, config: EngineConfig, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        launch = backend.launch(config, log_path=tmp_path / "log", port=port)
        with pytest.raises(EngineError, match=rf"port {port} on 127.0.0.1 is in use") as caught, launch:
            pass
    assert caught.value.kind is FailureKind.PORT


def test_a_python_without_vllm_is_refused_with_what_to_do(config: EngineConfig, tmp_path: Path) -> None:
    [refusal] = VllmBackend(python=sys.executable, cache=tmp_path).check(config)
    assert "has no vLLM" in refusal.reason
    assert "--vllm-python" in refusal.reason
    [refusal] = VllmBackend(python=tmp_path / "none", cache=tmp_path).check(config)
    assert "cannot run" in refusal.reason


def test_options_are_asked_once_and_the_metadata_stub_stays_out_of_the_environment(
    fake_python: Path, tmp_path: Path
) -> None:
    backend = VllmBackend(python=fake_python, cache=tmp_path)
    assert backend.environment.is_cpu_build
    assert backend.environment.known_options.version == "0.32.0"
    [kept] = tmp_path.glob("vllm-0.32.0-*.json")
    kept.write_text(kept.read_text().replace('"version":"0.32.0"', '"version":"kept"'))
    again = VllmBackend(python=fake_python, cache=tmp_path).environment
    assert again.known_options.version == "kept"
    metadata = Path(again.variables["PYTHONPATH"].split(os.pathsep)[0])
    assert metadata.is_relative_to(tmp_path)
    assert "Version: 0.32.0+cpu" in (metadata / "vllm-0.32.0+cpu.dist-info" / "METADATA").read_text()


def test_the_engine_is_registered() -> None:
    assert BACKENDS["vllm"]().name == "vllm"
