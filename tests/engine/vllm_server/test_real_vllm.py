"""A real vLLM (CPU build) on the demo's model: the contract, its own failures, and nothing left behind.

Needs FOPT_VLLM_PYTHON, the Python of its environment (`make test-vllm` makes one).
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from backend_contract import BackendContract, descendants, post
from test_process import wait_gone

from engine.backend import Backend, EngineError, FailureKind
from engine.config import EngineConfig, Quantization
from engine.process import ChildProcess, free_port, kept
from engine.shared_memory import FOLDER, held_by_group
from engine.vllm_server.backend import VllmBackend
from engine.vllm_server.known_options import KnownOptions

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parents[3]
MODELS = ROOT / "workloads" / "demo" / "models"


@pytest.fixture(scope="module")
def vllm_python() -> str:
    python = os.environ.get("FOPT_VLLM_PYTHON")
    if not python:
        pytest.skip("FOPT_VLLM_PYTHON names no Python that has vLLM")
    return python


@pytest.fixture(scope="module")
def backend(vllm_python: str) -> Backend:
    return VllmBackend(python=vllm_python)


@pytest.fixture(scope="module")
def config() -> EngineConfig:
    return EngineConfig(
        model=str(MODELS / "target"), engine="vllm", enforce_eager=True, block_size=32, kv_cache_memory_bytes=2**28
    )


class TestRealVllm(BackendContract):
    pass


def test_the_stored_options_are_the_real_parsers(backend: VllmBackend, known: KnownOptions) -> None:
    real = backend.environment.known_options
    assert real.options == known.options
    assert real.speculative_methods == known.speculative_methods


def test_an_fp8_kv_cache_runs_or_is_refused(backend: VllmBackend, config: EngineConfig, tmp_path: Path) -> None:
    small = config.model_copy(update={"dtype": "float32", "quantization": Quantization(kv_cache="fp8")})
    if not backend.environment.known_options.has_fp8_kv_cache:
        [refusal] = backend.check(small)
        assert refusal.kind is FailureKind.MISSING_KERNEL
        with (
            pytest.raises(EngineError, match="FP8 KV cache on CPU requires"),
            backend.launch(small, log_path=tmp_path / "engine.log"),
        ):
            pass
        return
    assert backend.check(small) == []
    body = {"prompt": [5, 6, 7, 8], "max_tokens": 8, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
    with backend.launch(small, log_path=tmp_path / "engine.log") as server:
        assert len(post(server, "/v1/completions", body)["choices"][0]["token_ids"]) == 8


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"engine_args": {"no-such-flag": 3}}, FailureKind.UNSUPPORTED, "unrecognized arguments: --no-such-flag"),
        ({"kv_cache_memory_bytes": 10**6}, FailureKind.OUT_OF_MEMORY, "larger than the available KV cache memory"),
        ({"quantization": {"weights": "fp8", "activations": "fp8"}}, FailureKind.MISSING_KERNEL, "fp8_quant"),
    ],
    ids=["a flag of another version", "too little KV cache", "no kernel"],
)
def test_a_launch_that_was_not_checked_fails_as_its_kind(
    vllm_python: str, config: EngineConfig, tmp_path: Path, change: dict[str, Any], kind: FailureKind, words: str
) -> None:
    wanted = EngineConfig.model_validate(config.model_dump() | change)
    backend = VllmBackend(python=vllm_python)
    assert backend.check(wanted), "refused where it is asked"
    before = descendants()
    with pytest.raises(EngineError, match=words) as caught, backend.launch(wanted, log_path=tmp_path / "engine.log"):
        pass
    assert caught.value.kind is kind
    assert descendants() == before


def test_a_port_that_was_taken_after_the_look_is_a_port_failure(
    backend: VllmBackend, config: EngineConfig, tmp_path: Path
) -> None:
    port = free_port()
    options = backend.write_options(config, tmp_path / "vllm.yaml")
    command = kept(backend.command(config, options, host="127.0.0.1", port=port))
    with socket.socket() as listener, tempfile.TemporaryDirectory() as scratch:  # paths of sockets must be short
        listener.bind(("127.0.0.1", port))
        listener.listen()
        variables = backend.variables(config, Path(scratch))
        child = ChildProcess(command, log_path=tmp_path / "engine.log", env=variables)
        with child:
            server = backend.server_of(child, config, port)
            with pytest.raises(EngineError) as caught:
                backend.wait(server, child)
    assert caught.value.kind is FailureKind.PORT


def test_nothing_is_left_when_fopt_is_killed_under_load(vllm_python: str, config: EngineConfig, tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from engine.vllm_server.backend import VllmBackend\n"
        "from engine.config import parse_engine_config\n"
        f"config = parse_engine_config({config.model_dump(mode='json')!r}, where='test')\n"
        f"backend = VllmBackend(python={vllm_python!r})\n"
        "with backend.launch(config, log_path=Path('engine.log')) as server:\n"
        "    print(server.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        keeper = int(parent.stdout.readline())
        family = [process.pid for process in psutil.Process(keeper).children(recursive=True)]
        held = held_by_group(keeper)
        assert any(path.name.startswith("psm_") for path in held)
        parent.kill()
    wait_gone(keeper)
    for pid in family:
        wait_gone(pid)
    assert not [path for path in held if path.exists()]


def test_a_stop_under_load_takes_seconds_and_leaves_nothing(
    backend: Backend, config: EngineConfig, tmp_path: Path
) -> None:
    body = {"prompt": [5, 6, 7], "max_tokens": 1000, "min_tokens": 1000, "ignore_eos": True, "stream": True}
    before = descendants()
    with backend.launch(config, log_path=tmp_path / "engine.log") as server:
        streams = [subprocess.Popen(_long_request(server.base_url, server.model_name, body)) for _ in range(8)]
        time.sleep(1)
        held = held_by_group(server.pid)
        begin = time.monotonic()
    assert time.monotonic() - begin < 15
    for stream in streams:
        stream.kill()
        stream.wait()
    assert descendants() == before
    assert held
    assert not [path for path in held if path.exists()]


def _long_request(url: str, model: str, body: dict[str, Any]) -> list[str]:
    program = (
        "import json, sys, urllib.request\n"
        f"data = json.dumps({ {'model': model, **body}!r}).encode()\n"
        f"request = urllib.request.Request({url + '/v1/completions'!r}, data, {{'Content-Type': 'application/json'}})\n"
        "try:\n    urllib.request.urlopen(request, timeout=60).read()\nexcept Exception:\n    pass\n"
    )
    return [sys.executable, "-c", program]


def test_two_ranks_answer_and_leave_nothing_when_killed(backend: Backend, config: EngineConfig, tmp_path: Path) -> None:
    body = {"prompt": [5, 6, 7, 8], "max_tokens": 8, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    split = config.model_copy(update={"tensor_parallel_size": 2, "dtype": "float32"})
    assert backend.check(split) == []
    with backend.launch(split, log_path=tmp_path / "engine.log") as server:
        held = held_by_group(server.pid)
        if "SHM communicator disabled" not in (tmp_path / "engine.log").read_text():  # as it is on CPUs without AVX-512
            assert any(path.name.startswith("vllm_dist_") for path in held)
        assert len(post(server, "/v1/completions", body)["choices"][0]["token_ids"]) == 8
        os.kill(server.pid, signal.SIGSTOP)  # a keeper that does not forward SIGTERM: the group is killed
    assert not [path for path in held if (FOLDER / path.name).exists()]


def test_a_reset_makes_suffix_decoding_as_cold_as_at_launch(
    backend: Backend, config: EngineConfig, vllm_python: str, tmp_path: Path
) -> None:
    """Needs arctic-inference beside vLLM, or on PYTHONPATH."""
    has = "import importlib.util, sys; sys.exit(importlib.util.find_spec('arctic_inference') is None)"
    if subprocess.run([vllm_python, "-c", has], check=False).returncode:
        pytest.skip("this vLLM has no arctic-inference, which suffix decoding needs")
    suffix = {"method": "suffix", "num_speculative_tokens": 8}
    drafting = EngineConfig.model_validate(config.model_dump() | {"speculative_config": suffix})
    body = {"prompt": list(range(5, 69)), "max_tokens": 96, "temperature": 0, "ignore_eos": True}
    accepted = []
    with backend.launch(drafting, log_path=tmp_path / "engine.log") as server:
        for is_reset in (False, False, True):
            if is_reset:
                server.reset_prefix_cache()
            before = server.statistics().num_accepted_tokens
            post(server, "/v1/completions", body)
            accepted.append(server.statistics().num_accepted_tokens - before)
    first, again, after_reset = accepted
    assert again > first, "it drafts from its own answer"
    assert after_reset == first
