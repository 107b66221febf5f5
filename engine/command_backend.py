"""`CommandBackend`: any OpenAI-compatible server that a command starts, its flags being what varies.

Does not know which server it is: `EngineConfig.launch` says how it is started, `engine_args` hold its flags.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.backend import EngineError, FailureKind, Refusal
from engine.config import EngineConfig
from engine.devices import VARIABLE
from engine.foreign_server import ForeignServer
from engine.free_port_launch import on_a_port, url_of
from engine.http_calls import CALL_ERRORS, HttpCalls, reason_of
from engine.launch_failure import failure_kind
from engine.process import ChildProcess, kept
from search_spaces.errors import SearchSpaceError
from search_spaces.launch_template import CONFIG_PLACES, Started

_HEALTH_TIMEOUT_S = 1.0
_MODELS_TIMEOUT_S = 10.0
_CARRIED = ("model", "engine", "hardware.")  # fields that need no place in a command


class CommandBackend:
    """Launches `config.launch`, on the given CPUs and GPUs when told.

    Args:
        devices: numbers or ids of the GPUs it may use, unless its space says; None: it is not told.
    """

    name = "command"

    def __init__(
        self,
        *,
        cpus: frozenset[int] | None = None,
        devices: Sequence[str] | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self._cpus, self._host = cpus, host
        self._variables = {} if devices is None else {VARIABLE: ",".join(devices)}

    def check(self, config: EngineConfig) -> list[Refusal]:
        if config.engine != self.name:
            return [Refusal(reason=f"the config is for engine {config.engine}. Set engine: command")]
        if config.launch is None:
            return [Refusal(reason="the config does not say how its server is started. Give it a launch: section")]
        try:
            started = started_by(config, host=self._host, port=0)
        except SearchSpaceError as error:
            return [Refusal(reason=str(error))]
        return [*_without_effect(config), *_missing(config, started)]

    @contextlib.contextmanager
    def launch(self, config: EngineConfig, *, log_path: Path, port: int | None = None) -> Iterator[ForeignServer]:
        def start(stack: contextlib.ExitStack, port: int) -> ForeignServer:
            return self._start_on(stack, config, log_path, port)

        with on_a_port(start, host=self._host, port=port, log_path=log_path) as server:
            yield server

    def _start_on(self, stack: contextlib.ExitStack, config: EngineConfig, log_path: Path, port: int) -> ForeignServer:
        launch = config.launch
        assert launch is not None, "ask check first"
        started = started_by(config, host=self._host, port=port)
        command = kept(started.command, cpus=self._cpus)
        variables = {**self._variables, **started.environment}
        child = stack.enter_context(ChildProcess(command, log_path=log_path, env=variables))
        base_url = url_of(self._host, port)
        calls = HttpCalls(base_url)
        try:
            launch_s = child.wait_healthy(lambda: _is_healthy(calls, launch.health), timeout_s=launch.timeout_s)
            names = calls.model_names(timeout_s=_MODELS_TIMEOUT_S)
        except EngineError as error:
            raise _told_by_log(error, child) from None
        except (*CALL_ERRORS, ValueError) as error:
            message = f"the server is healthy and has no /v1/models: {reason_of(error)}. See {log_path}"
            raise EngineError(message, kind=FailureKind.UNSUPPORTED, log_path=log_path) from None
        return ForeignServer(
            base_url=base_url,
            model_name=_served_name(config, names),
            log_path=log_path,
            liveness=lambda: _check_child(child),
            launch_s=launch_s,
        )


def started_by(config: EngineConfig, *, host: str, port: int, model_name: str | None = None) -> Started:
    """The command and environment that serve a config.

    Args:
        model_name: what the server is to call its model, where the command can say so; else the folder's name.

    Raises:
        SearchSpaceError: a place of the command has no value.
    """
    assert config.launch is not None, "ask check first"
    fields = {name: getattr(config, name) for name in CONFIG_PLACES}
    name = model_name or Path(config.model).name
    values = {**fields, "model": config.model, "model_name": name, "host": host, "port": port}
    return config.launch.fill(values, config.engine_args)


def _without_effect(config: EngineConfig) -> Iterator[Refusal]:
    """What the config asks for and the command has no place for: it would be measured under a wrong name."""
    assert config.launch is not None
    default = EngineConfig(model=config.model, engine="command")
    for name, (_, value) in config.differences(default).items():
        if name.startswith("engine_args."):
            reaches = config.launch.takes(name.removeprefix("engine_args."))
        else:
            reaches = name in config.launch.places() or name.startswith(_CARRIED)
        if not reaches:
            known = name in CONFIG_PLACES
            fix = f"Name {{{name}}} in launch.command" if known else "Use engine_args for the server's own flags"
            yield Refusal(reason=f"{name} {value} does not reach the server. {fix}", kind=FailureKind.UNSUPPORTED)


def _missing(config: EngineConfig, started: Started) -> Iterator[Refusal]:
    """A program or a model folder that is not there. What is no path may be a name that the server knows."""
    program, model = started.command[0], config.model
    if shutil.which(program, path=started.environment.get("PATH", os.environ.get("PATH"))) is None:
        yield Refusal(reason=f"there is no program {program}. Install it, or give its path in launch.command")
    if model.startswith(("/", "./", "../", "~")) and not Path(model).exists():
        yield Refusal(reason=f"there is no model at {model}. Give its folder", kind=FailureKind.BAD_CHECKPOINT)


def _is_healthy(calls: HttpCalls, path: str) -> bool:
    try:
        calls.call("GET", path, timeout_s=_HEALTH_TIMEOUT_S)
    except CALL_ERRORS:
        return False
    return True


def _served_name(config: EngineConfig, names: list[str]) -> str:
    """The folder's name where the server lists it, else what it lists first."""
    wanted = Path(config.model).name
    return wanted if wanted in names or not names else names[0]


def _told_by_log(error: EngineError, child: ChildProcess) -> EngineError:
    """A death before the first answer, under the kind that its log tells."""
    kind = failure_kind(child.log_tail()) if error.kind is FailureKind.DIED else None
    return EngineError(str(error), kind=kind or error.kind, log_path=child.log_path)


def _check_child(child: ChildProcess) -> None:
    if (status := child.exit_status()) is not None:
        raise child.death(status, "while serving")
