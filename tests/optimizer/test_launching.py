"""Who waits for a launch is told what it does, and for how long such launches took."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from engine.backend import Backend, EngineError, FailureKind, Refusal, Server
from engine.config import EngineConfig
from engine.launch_phases import note_for_reader
from optimizer import launching
from optimizer.launching import Launcher, _Watch

CONFIG = EngineConfig(model="m")


class SlowBackend:
    """Writes the log lines it is given, each once the one before was told."""

    name = "slow"

    def __init__(self, lines: list[str], heard: Callable[[str], bool], *, fails: bool = False) -> None:
        self.lines, self.heard, self.fails = lines, heard, fails
        self.events: list[str] = []

    def check(self, config: EngineConfig) -> list[Refusal]:  # noqa: ARG002
        return []

    @contextmanager
    def launch(self, config: EngineConfig, *, log_path: Path, port: int | None = None) -> Iterator[Server]:  # noqa: ARG002
        for line in self.lines:
            with log_path.open("a") as log:
                log.write(line + "\n")
            assert self.heard(line)
        if self.fails:
            raise EngineError("no", kind=FailureKind.DIED)
        try:
            yield cast(Server, SimpleNamespace(launch_s=31.0))
        finally:
            self.events.append("stop")


class Ear:
    """A report; `heard` waits until something of a line was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.news = threading.Condition()

    def __call__(self, text: str) -> None:
        with self.news:
            self.told.append(text)
            self.news.notify_all()

    def heard(self, words: str) -> bool:
        with self.news:
            return self.news.wait_for(lambda: any(words in text for text in self.told), timeout=20)


def test_each_phase_is_told_until_the_server_is_healthy(tmp_path: Path) -> None:
    ear = Ear()
    expected = {
        "fopt: quantized checkpoint: rounding": "launching · quantized checkpoint: rounding, 0 s",
        "Starting to load model m": "launching · loading weights, 0 s",
        "Capturing CUDA graphs: 20%": "launching · capturing graphs 20%, 0 s",
    }
    backend = SlowBackend(list(expected), lambda line: ear.heard(expected[line].split(",")[0]))
    launcher = Launcher(cast(Backend, backend), poll_s=0.01)
    with launcher.launch(CONFIG, log_path=tmp_path / "log", report=ear) as server:
        assert server.launch_s == 31
        num_told = len(ear.told)
    assert backend.events == ["stop"]
    assert ear.told[0] == "launching"
    assert len(ear.told) == num_told, "nothing is told once it serves"
    assert "launch watch" not in {thread.name for thread in threading.enumerate()}


def test_a_launch_that_fails_ends_the_watch_too(tmp_path: Path) -> None:
    launcher = Launcher(cast(Backend, SlowBackend([], lambda _: True, fails=True)))
    with pytest.raises(EngineError), launcher.launch(CONFIG, log_path=tmp_path / "log"):
        pass
    assert "launch watch" not in {thread.name for thread in threading.enumerate()}


def test_what_others_took_is_told_and_warm_ones_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = Launcher(cast(Backend, SlowBackend([], lambda _: True)))
    with launcher.launch(CONFIG, log_path=tmp_path / "log"):
        assert launcher.typical_s is None, "it took no time: an idle server took it"
    monkeypatch.setattr(launching, "_WORTH_TELLING_S", 0.0)
    with launcher.launch(CONFIG, log_path=tmp_path / "log"):
        assert launcher.typical_s == 31


def test_a_line_has_the_phase_the_time_and_the_typical_time(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("Capturing CUDA graphs: 90%\n")
    watch = _Watch(log, 31.4)
    begin = watch._begin
    assert watch.line(begin + 2) == "launching · starting, 2 s of about 31 s", "old words are not its own"
    note_for_reader(log, "quantized checkpoint: GPTQ")
    assert watch.line(begin + 20) == "launching · quantized checkpoint: GPTQ, 20 s"
    with log.open("a") as file:
        file.write("Loading safetensors checkpoint shards: 50%\r")
    assert watch.line(begin + 25) == "launching · loading weights 50%, 5 s of about 31 s"
    assert _Watch(tmp_path / "none", None).line(begin + 1).startswith("launching · starting, ")
