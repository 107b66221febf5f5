"""An idle server takes the next config where it can; whatever goes wrong, a launch says so."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine.backend import Backend, EngineError, FailureKind, Refusal, Server
from engine.config import EngineConfig
from engine.warm_backend import WarmBackend


def config(number: int, **fields: Any) -> EngineConfig:
    return EngineConfig(model="m", seed=number, **fields)


class Recorder:
    """Servers take other seeds but 13, at which they die, and 7, which they do not like."""

    name = "recorder"

    def __init__(self) -> None:
        self.events: list[str] = []
        self.num_running = 0

    def check(self, config: EngineConfig) -> list[Refusal]:
        tight = config.seed == 5 and self.num_running
        return [Refusal(reason="no room", kind=FailureKind.OUT_OF_MEMORY)] if tight else []

    @contextmanager
    def launch(self, config: EngineConfig, *, log_path: Path, port: int | None = None) -> Iterator[Server]:
        self.events.append(f"launch {config.seed}" + (f" on {port}" if port else ""))
        log_path.write_text("up\n")
        self.num_running += 1

        def reconfigure(wanted: EngineConfig) -> bool:
            if wanted.seed == 13:
                raise EngineError("gone", kind=FailureKind.DIED)
            if wanted.seed != 7:
                self.events.append(f"warm {wanted.seed}")
            return wanted.seed != 7

        try:
            yield cast(Server, SimpleNamespace(log_path=log_path, reconfigure=reconfigure))
        finally:
            self.num_running -= 1
            self.events.append("stop")


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def serve(warm: WarmBackend, folder: Path, *numbers: int, port: int | None = None) -> None:
    for number in numbers:
        with (
            warm.launch(config(number), log_path=folder / f"{number}.log", port=port) as server,
            server.log_path.open("a") as log,
        ):
            log.write(f"served {number}\n")


def test_the_last_server_takes_the_next_config_and_stops_at_the_end(recorder: Recorder, tmp_path: Path) -> None:
    backend: Backend = recorder
    with WarmBackend(backend) as warm:
        serve(warm, tmp_path, 1, 2, 3)
        assert (warm.num_cold, warm.num_warm) == (1, 2)
    assert recorder.events == ["launch 1", "warm 2", "warm 3", "stop"]
    assert (tmp_path / "3.log").read_text().splitlines()[1:] == ["served 3"]


@pytest.mark.parametrize("number", [7, 13])
def test_a_server_that_cannot_is_replaced(recorder: Recorder, tmp_path: Path, number: int) -> None:
    with WarmBackend(recorder) as warm:
        serve(warm, tmp_path, 1, number)
    assert recorder.events == ["launch 1", "stop", f"launch {number}", "stop"]


def test_a_turn_that_failed_keeps_nothing(recorder: Recorder, tmp_path: Path) -> None:
    with WarmBackend(recorder) as warm:
        with pytest.raises(EngineError), warm.launch(config(1), log_path=tmp_path / "1.log"):
            raise EngineError("hung", kind=FailureKind.HANG)
        assert recorder.events == ["launch 1", "stop"]
        serve(warm, tmp_path, 2)
    assert recorder.events[2:] == ["launch 2", "stop"]


def test_two_at_once_are_two_servers(recorder: Recorder, tmp_path: Path) -> None:
    with WarmBackend(recorder) as warm, warm.launch(config(1), log_path=tmp_path / "1.log"):
        serve(warm, tmp_path, 2)
        assert recorder.num_running == 2
    assert recorder.num_running == 0


def test_a_port_of_ones_own_needs_a_launch(recorder: Recorder, tmp_path: Path) -> None:
    with WarmBackend(recorder) as warm:
        serve(warm, tmp_path, 1)
        serve(warm, tmp_path, 2, port=8123)
    assert recorder.events == ["launch 1", "stop", "launch 2 on 8123", "stop"]


def test_the_idle_servers_memory_does_not_speak_against_a_config(recorder: Recorder, tmp_path: Path) -> None:
    with WarmBackend(recorder) as warm:
        serve(warm, tmp_path, 1)
        assert warm.check(config(5)) == []
        assert recorder.events == ["launch 1", "stop"]
