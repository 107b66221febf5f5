"""Servers that a command starts: the contract with our own server behind flags, and what a plain one lacks."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from backend_contract import BackendContract, descendants, post
from test_process import wait_gone

from engine.backend import Backend, EngineError, FailureKind
from engine.command_backend import CommandBackend
from engine.config import EngineConfig, dump_engine_config, parse_engine_config

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ENVIRONMENT = {"PYTHONPATH": str(ROOT)}
COMMAND = [sys.executable, str(HERE / "flag_server.py"), "--model", "{model}", "--port", "{port}", "{flags}"]
PLAIN = [sys.executable, str(HERE / "plain_server.py"), "{port}"]


def launched_by(command: list[str], model: Path | str, **fields: object) -> EngineConfig:
    launch = {"command": command, "environment": ENVIRONMENT, "timeout_s": 280, **dict(fields.pop("launch", {}))}  # type: ignore[call-overload]
    values = {"model": str(model), "engine": "command", "launch": launch, **fields}
    return parse_engine_config(values, where="test")


@pytest.fixture(scope="module")
def backend() -> Backend:
    return CommandBackend()


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> EngineConfig:
    return launched_by(COMMAND, tiny_model, engine_args={"max-num-seqs": 4, "eager": False, "weights": None})


class TestCommandBackend(BackendContract):
    pass


def test_flags_reach_the_server(tiny_model: Path, tmp_path: Path) -> None:
    command = [*COMMAND, "--name", "{model_name}-served"]
    config = launched_by(command, tiny_model, engine_args={"weights": "int4_g32", "eager": True})
    assert CommandBackend().check(config) == []
    cpu = min(os.sched_getaffinity(0))
    with CommandBackend(cpus=frozenset({cpu})).launch(config, log_path=tmp_path / "engine.log") as server:
        assert server.model_name == "tiny-served"
        assert all(os.sched_getaffinity(pid) == {cpu} for pid in descendants())
        answer = post(server, "/v1/completions", {"prompt": [5, 6], "max_tokens": 2})
        assert answer["usage"]["prompt_tokens"] == 2
        assert server.notes == ()
        assert not server.reconfigure(config)


def test_a_plain_server_is_served_and_what_it_lacks_is_said(tmp_path: Path) -> None:
    config = launched_by(PLAIN, "org/plain", launch={"health": "/v1/models"})
    assert CommandBackend().check(config) == []
    with CommandBackend().launch(config, log_path=tmp_path / "engine.log") as server:
        assert server.model_name == "org/plain"
        assert server.notes == ()
        server.reset_prefix_cache()
        assert server.statistics().acceptance_length is None
        assert server.steps() is None
        assert [note[:45] for note in server.notes] == [
            "the server has no call that empties its prefi",
            "the server's /metrics says nothing we know: n",
        ]


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (
            "memory",
            FailureKind.OUT_OF_MEMORY,
            "before it was healthy (exit status 1): RuntimeError: CUDA out of memory",
        ),
        ("port", FailureKind.PORT, "Address already in use"),
        ("nonsense", FailureKind.UNSUPPORTED, "invalid choice: 'nonsense'"),
        ("sleep", FailureKind.TIMEOUT, "not healthy after 1 s"),
    ],
)
def test_a_failed_start_has_a_kind_and_the_logs_last_words(
    tiny_model: Path, tmp_path: Path, fault: str, kind: FailureKind, words: str
) -> None:
    before = descendants()
    deadline = {"timeout_s": 1} if fault == "sleep" else {}
    config = launched_by(COMMAND, tiny_model, engine_args={"break": fault}, launch=deadline)
    launch = CommandBackend().launch(config, log_path=tmp_path / "engine.log")
    with pytest.raises(EngineError) as caught, launch:
        pass
    assert caught.value.kind is kind
    assert words in str(caught.value)
    assert str(tmp_path / "engine.log") in str(caught.value)
    assert descendants() == before


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"engine": "bundled"}, "the config is for engine bundled"),
        ({"launch": None}, "does not say how its server is started"),
        ({"max_num_seqs": 8}, "max_num_seqs 8 does not reach the server. Name {max_num_seqs} in launch.command"),
        (
            {"disaggregation": {"prefill_instances": 2, "decode_instances": 1}},
            "disaggregation.prefill_instances 2 does not reach the server",
        ),
        ({"quantization": {"weights": "int8"}}, "quantization.weights int8 does not reach the server. Use engine_args"),
        ({"launch": {"command": ["no-such-program", "{port}"]}}, "there is no program no-such-program"),
        ({"launch": {"command": ["{engine_args.x}", "{port}"]}}, "launch.command[0]: engine_args.x has no value"),
        (
            {"launch": {"command": [sys.executable, "{port}"]}, "engine_args": {"a": 1}},
            "engine_args.a 1 does not reach the server",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_a_launch(
    config: EngineConfig, fields: dict[str, object], words: str
) -> None:
    values = config.model_dump(mode="json") | {"engine_args": {}} | fields
    reasons = [refusal.reason for refusal in CommandBackend().check(parse_engine_config(values, where="test"))]
    assert any(words in reason for reason in reasons), reasons


@pytest.mark.parametrize(("said", "seen"), [({}, "2,3"), ({"CUDA_VISIBLE_DEVICES": "7"}, "7")])
def test_a_server_sees_the_devices_it_is_given_unless_its_space_says(
    tmp_path: Path, said: dict[str, str], seen: str
) -> None:
    program = "import os; print('sees', os.environ['CUDA_VISIBLE_DEVICES'])"
    config = launched_by([sys.executable, "-c", program, "{port}"], "m", launch={"environment": said})
    launch = CommandBackend(devices=("2", "3")).launch(config, log_path=tmp_path / "engine.log")
    with pytest.raises(EngineError, match=f"sees {seen}"), launch:
        pass


def test_a_port_in_use_is_said_before_launching(config: EngineConfig, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        launch = CommandBackend().launch(config, log_path=tmp_path / "log", port=port)
        with pytest.raises(EngineError, match=rf"port {port} on 127.0.0.1 is in use"), launch:
            pass


def test_the_quality_class_holds_what_changes_the_numbers(config: EngineConfig) -> None:
    values = config.model_dump(mode="json")
    values["launch"]["quality"] = {"weights": None}
    default = parse_engine_config(values, where="test")
    other = default.model_copy(update={"engine_args": {**default.engine_args, "weights": "int8"}})
    faster = default.model_copy(update={"engine_args": {**default.engine_args, "max-num-seqs": 8}})
    assert other.quality_class().endswith("/weights=int8")
    assert faster.quality_class() == default.quality_class() != other.quality_class()


def test_a_config_with_its_command_survives_its_file(config: EngineConfig, tmp_path: Path) -> None:
    import yaml

    path = tmp_path / "config.yaml"
    path.write_text(dump_engine_config(config))
    assert parse_engine_config(yaml.safe_load(path.read_text()), where="file") == config


def test_no_server_outlives_a_killed_parent(config: EngineConfig, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(dump_engine_config(config))
    program = (
        "import time\n"
        "from pathlib import Path\n"
        "import psutil\n"
        "from engine.command_backend import CommandBackend\n"
        "from engine.config import load_engine_config\n"
        "launch = CommandBackend().launch(load_engine_config(Path('config.yaml')), log_path=Path('engine.log'))\n"
        "with launch:\n"
        "    print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)\n"
        "    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(pids) == 2  # the keeper and the server
    for pid in pids:
        wait_gone(pid)
