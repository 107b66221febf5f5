"""`BundledBackend`: our own engine, launched as a process of its own.

Does not import torch: what the engine does is known here by checkpoint folders and its HTTP API alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.backend import EngineError, FailureKind, Refusal
from engine.bundled_check import refusals
from engine.config import EngineConfig, dump_engine_config
from engine.devices import VARIABLE
from engine.free_port_launch import on_a_port, url_of
from engine.process import ChildProcess
from engine.process_server import ProcessServer

_API_KEY_VARIABLE = "FOPT_ENGINE_API_KEY"
_PACKAGE_ROOT = Path(__file__).resolve().parent.parent


class BundledBackend:
    """Launches `engine.bundled.server`, on the given CPUs and GPUs when told."""

    name = "bundled"

    def __init__(
        self,
        *,
        cpus: frozenset[int] | None = None,
        devices: Sequence[str] | None = None,
        python: str = sys.executable,
        launch_timeout_s: float = 120,
        host: str = "127.0.0.1",
        api_key: str | None = None,
        reconfigurable: bool = False,
    ) -> None:
        self._cpus = cpus
        self._variables = {} if devices is None else {VARIABLE: ",".join(devices)}
        self._python = python
        self._launch_timeout_s = launch_timeout_s
        self._host = host
        self._api_key = api_key
        self._reconfigurable = reconfigurable  # servers keep unquantized weights and take other configs

    def check(self, config: EngineConfig) -> list[Refusal]:
        return refusals(config, num_cores=len(self._cpus or os.sched_getaffinity(0)))

    @contextlib.contextmanager
    def launch(self, config: EngineConfig, *, log_path: Path, port: int | None = None) -> Iterator[ProcessServer]:
        def start(stack: contextlib.ExitStack, port: int) -> ProcessServer:
            return self._start_on(stack, config, log_path, port)

        with on_a_port(start, host=self._host, port=port, log_path=log_path) as server:
            yield server

    def _start_on(self, stack: contextlib.ExitStack, config: EngineConfig, log_path: Path, port: int) -> ProcessServer:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        config_path = log_path.with_suffix(".yaml")
        config_path.write_text(dump_engine_config(config))
        child = stack.enter_context(
            ChildProcess(self._command(config_path, port), log_path=log_path, env=self._environment())
        )
        server = ProcessServer(
            child,
            base_url=url_of(self._host, port),
            model_name=Path(config.model).name,
            api_key=self._api_key,
            reconfigurable=self._reconfigurable,
        )
        try:
            server.launch_s = child.wait_healthy(server.is_healthy, timeout_s=self._launch_timeout_s)
        except EngineError as error:
            raise _reported_failure(child) or error from None
        return server

    def _command(self, config_path: Path, port: int) -> list[str]:
        program = [self._python, "-P", "-m", "engine.bundled.server", "--parent-pid", str(os.getpid())]
        where = ["--config", str(config_path), "--port", str(port), "--host", self._host]
        cpus = ["--cpus", ",".join(map(str, sorted(self._cpus)))] if self._cpus else []
        key = ["--api-key-env", _API_KEY_VARIABLE] if self._api_key else []
        warm = ["--allow-reconfigure"] if self._reconfigurable else []
        return [*program, *where, *cpus, *key, *warm]

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join(filter(None, (str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH"))))
        key = {_API_KEY_VARIABLE: self._api_key} if self._api_key else {}
        return {"PYTHONPATH": path, **key, **self._variables}


def _reported_failure(child: ChildProcess) -> EngineError | None:
    """What the engine itself said on the last line of its log."""
    lines = child.log_tail()
    try:
        report = json.loads(lines[-1])
        kind, message = FailureKind(report["kind"]), str(report["message"])
    except (IndexError, ValueError, TypeError, KeyError):
        return None
    return EngineError(f"{message} (log: {child.log_path})", kind=kind, log_path=child.log_path)
