"""The server as a process: how it starts, refuses to start, and ends."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Client
from tiny_checkpoint import write_tiny_checkpoint

from engine.backend import FailureKind
from engine.bundled.errors import CapacityError, CheckpointError, UnsupportedError
from engine.bundled.server.start_failure import failure_kind
from engine.process import free_port

HERE = Path(__file__).resolve().parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{HERE.parents[3]}{os.pathsep}{HERE}"}
ENDLESS = {"prompt": "say", "max_tokens": 90, "ignore_eos": True}


def command(folder: Path, port: int, *options: str, config: str = "model: MODEL") -> list[str]:
    model = folder / "demo"
    if not model.exists():
        write_tiny_checkpoint(model)
    (folder / "config.yaml").write_text(config.replace("MODEL", str(model)))
    where = ["--config", str(folder / "config.yaml"), "--port", str(port)]
    return [sys.executable, str(HERE / "fake_server.py"), *where, *options]


@contextlib.contextmanager
def running(folder: Path, *options: str, seed: int = 0) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    port = free_port()
    arguments = command(folder, port, *options, config=f"model: MODEL\nseed: {seed}")
    with subprocess.Popen(arguments, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("serving demo on ")
            yield process, Client(f"http://127.0.0.1:{port}")
        finally:
            process.kill()


def refused(arguments: list[str]) -> tuple[str, dict[str, str]]:
    """The sentence and the JSON of a start that fails as it should."""
    done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    sentence, report = done.stderr.splitlines()
    return sentence, json.loads(report)


def test_sigterm_ends_an_idle_server_with_zero(tmp_path: Path) -> None:
    with running(tmp_path) as (process, client):
        assert client.get("/v1/models")[1]["data"][0]["id"] == "demo"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_sigterm_lets_an_answer_finish_that_is_almost_there(tmp_path: Path) -> None:
    with running(tmp_path, seed=1) as (process, client):
        body = {"prompt": "say", "max_tokens": 4}
        with contextlib.closing(client.open_stream("/v1/completions", body)) as connection:
            response = connection.getresponse()
            response.read(10)
            process.send_signal(signal.SIGTERM)
            assert '"finish_reason":"length"' in response.read().decode()
        assert process.wait(30) == 0


def test_a_long_drain_waits_for_the_answer_and_a_second_signal_does_not(tmp_path: Path) -> None:
    with running(tmp_path, "--drain-s", "1000", seed=1) as (process, client):
        with contextlib.closing(client.open_stream("/v1/completions", ENDLESS | {"max_tokens": 40})) as connection:
            response = connection.getresponse()
            response.read(10)
            process.send_signal(signal.SIGTERM)
            assert '"finish_reason":"length"' in response.read().decode()
        assert process.wait(30) == 0
    with running(tmp_path, "--drain-s", "1000", seed=1) as (process, client):
        with contextlib.closing(client.open_stream("/v1/completions", ENDLESS)) as connection:
            response = connection.getresponse()
            response.read(10)
            process.send_signal(signal.SIGTERM)
            while client.get("/health")[0] == 200:
                pass
            process.send_signal(signal.SIGTERM)
            assert "the server is shutting down" in response.read().decode()
        assert process.wait(30) == 0


def test_sigterm_aborts_a_long_answer(tmp_path: Path) -> None:
    with running(tmp_path, seed=1) as (process, client):
        with contextlib.closing(client.open_stream("/v1/completions", ENDLESS)) as connection:
            response = connection.getresponse()
            response.read(10)
            process.send_signal(signal.SIGTERM)
            assert "the server is shutting down" in response.read().decode()
        assert process.wait(30) == 0


def test_a_broken_engine_ends_the_process_with_its_traceback(tmp_path: Path) -> None:
    with running(tmp_path, seed=2) as (process, client):
        status, answer = client.post("/v1/completions", ENDLESS)
        assert status == 500
        assert "engine has stopped" in answer["error"]["message"]
        assert client.get("/health")[0] == 500
        assert process.wait(30) == 1
        assert process.stderr is not None
        assert "RuntimeError: the fake engine broke" in process.stderr.read()


def test_the_name_and_the_key_are_as_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "A_KEY", "secret")
    port = free_port()
    arguments = command(tmp_path, port, "--served-model-name", "mine", "--api-key-env", "A_KEY")
    with subprocess.Popen(arguments, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("serving mine on ")
        client = Client(f"http://127.0.0.1:{port}")
        assert client.get("/v1/models")[0] == 401
        assert client.get("/v1/models", headers={"Authorization": "Bearer secret"})[0] == 200
        process.terminate()
        assert process.wait(30) == 0


def test_a_key_variable_that_is_not_set_is_refused(tmp_path: Path) -> None:
    sentence, _ = refused(command(tmp_path, free_port(), "--api-key-env", "NOT_SET_ANYWHERE"))
    assert "environment variable NOT_SET_ANYWHERE holds no API key" in sentence


def test_a_wrong_config_is_one_sentence_and_one_json_line(tmp_path: Path) -> None:
    sentence, report = refused(command(tmp_path, free_port(), config="model: m\nmax_num_seq: 4"))
    assert sentence.startswith("fopt: error: ")
    assert "max_num_seq: unknown option" in sentence
    assert report["kind"] == FailureKind.UNSUPPORTED
    assert report["message"] in sentence


def test_a_bad_checkpoint_is_said_before_torch_is_imported(tmp_path: Path) -> None:
    sentence, report = refused(command(tmp_path, free_port(), config="model: /no/such/model"))
    assert "model folder /no/such/model does not exist" in sentence
    assert report["kind"] == FailureKind.BAD_CHECKPOINT


def test_a_port_in_use_is_said_before_the_model_is_loaded(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        sentence, report = refused(command(tmp_path, port))
    assert f"port {port} on 127.0.0.1 is in use" in sentence
    assert report["kind"] == FailureKind.PORT


def test_a_server_whose_parent_is_gone_does_not_start(tmp_path: Path) -> None:
    arguments = command(tmp_path, free_port(), "--parent-pid", "1")
    assert subprocess.run(arguments, env=ENVIRONMENT, timeout=120, check=False).returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CheckpointError("x"), FailureKind.BAD_CHECKPOINT),
        (CapacityError("x"), FailureKind.OUT_OF_MEMORY),
        (MemoryError(), FailureKind.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), FailureKind.OUT_OF_MEMORY),
        (RuntimeError("CUDA out of memory. Tried"), FailureKind.OUT_OF_MEMORY),
        (UnsupportedError("x"), FailureKind.UNSUPPORTED),
        (RuntimeError("shape mismatch"), None),
    ],
)
def test_start_failures_speak_the_parents_words(error: Exception, kind: FailureKind | None) -> None:
    assert failure_kind(error) == kind
