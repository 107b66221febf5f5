"""`VllmBackend`: candidates as real `vllm serve` processes.

Does not import vLLM: what it is, is known by its own parser's answers, its log and its HTTP API.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import yaml

from engine.artifacts.checkpoint_record import CheckpointRecord
from engine.artifacts.provenance import read_record
from engine.backend import EngineError, Refusal
from engine.config import EngineConfig
from engine.devices import VARIABLE, DevicePool, visible_devices
from engine.free_port_launch import on_a_port, url_of
from engine.launch_phases import note_for_reader
from engine.process import ChildProcess, kept
from engine.vllm_options import cpu_variables, needs_checkpoint, num_ranks, vllm_options
from engine.vllm_server.check import Place, refusals
from engine.vllm_server.drafts_memory import FORGETS, INSIDE, DraftsMemory
from engine.vllm_server.environment import VllmEnvironment
from engine.vllm_server.server import VllmServer

KV_CACHE_GIB = 1  # on a CPU, where a config does not say
_QUIET = "disable-uvicorn-access-log"  # a line a request costs time


class Checkpoints(Protocol):
    """Gives the folder of quantized weights that a config needs, making it where it is not there yet."""

    def __call__(self, config: EngineConfig, *, report: Callable[[str], None]) -> Path: ...


class VllmBackend:
    """Launches `vllm serve --config` from the environment of `python`.

    Args:
        python: the interpreter that has vLLM; None: our own.
        cpus: that vLLM may use; None: all of this process's.
        devices: numbers or ids of the GPUs it may use, of which each launch gets the first free ones; None: those that
            are visible here.
        checkpoints: gives the folder of quantized weights that a config needs, and tells what it does meanwhile; None:
            such configs are refused.
        launch_timeout_s: compiling and capturing graphs of a large model takes minutes.
    """

    name = "vllm"

    def __init__(
        self,
        *,
        python: str | Path | None = None,
        cpus: frozenset[int] | None = None,
        devices: Sequence[int | str] | None = None,
        checkpoints: Checkpoints | None = None,
        launch_timeout_s: float = 900,
        host: str = "127.0.0.1",
        api_key: str | None = None,
        cache: Path | None = None,
    ) -> None:
        self.environment = VllmEnvironment(python or sys.executable, cache=cache)
        self._cpus = cpus
        self._devices = DevicePool(visible_devices() if devices is None else devices)
        self._checkpoints = checkpoints
        self._launch_timeout_s = launch_timeout_s
        self._host, self._api_key = host, api_key

    def check(self, config: EngineConfig) -> list[Refusal]:
        try:
            return refusals(config, self._place)
        except EngineError as error:
            return [Refusal(reason=str(error), kind=error.kind)]

    @cached_property
    def _place(self) -> Place:
        return Place(
            known=self.environment.known_options,
            is_cpu_build=self.environment.is_cpu_build,
            cores=self._cores,
            devices=self._devices,
            makes_checkpoints=self._checkpoints is not None,
            kv_cache_gib=KV_CACHE_GIB,
        )

    @property
    def _cores(self) -> tuple[int, ...]:
        return tuple(sorted(self._cpus or os.sched_getaffinity(0)))

    @contextlib.contextmanager
    def launch(self, config: EngineConfig, *, log_path: Path, port: int | None = None) -> Iterator[VllmServer]:
        def start(stack: contextlib.ExitStack, port: int) -> VllmServer:
            return self._start_on(stack, config, log_path, port)

        with on_a_port(start, host=self._host, port=port, log_path=log_path) as server:
            yield server

    def _start_on(self, stack: contextlib.ExitStack, config: EngineConfig, log_path: Path, port: int) -> VllmServer:
        checkpoint = self.checkpoint(config, report=lambda text: note_for_reader(log_path, text))
        config_path = _write_yaml(config, checkpoint, log_path.with_suffix(".yaml"))
        scratch = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="fopt-vllm-", ignore_cleanup_errors=True))
        )
        serve = self.command(config, config_path, host=self._host, port=port, with_resets=True)
        command = kept(serve, cpus=self._cpus, scratch=scratch)
        variables = self.variables(config, scratch) | self._take_devices(stack, config)
        child = stack.enter_context(ChildProcess(command, log_path=log_path, env=variables))
        server = self.server_of(child, config, port, weights=read_record(checkpoint) if checkpoint else None)
        self.wait(server, child)
        return server

    def _take_devices(self, stack: contextlib.ExitStack, config: EngineConfig) -> dict[str, str]:
        """The variable that gives a launch its own GPUs, until the stack is closed; Ray gives its workers theirs."""
        if self.environment.is_cpu_build or config.distributed_executor_backend == "ray":
            return {}
        mine = stack.enter_context(self._devices.take(num_ranks(config)))
        return {} if mine is None else {VARIABLE: ",".join(mine)}

    def server_of(
        self, child: ChildProcess, config: EngineConfig, port: int, *, weights: CheckpointRecord | None = None
    ) -> VllmServer:
        """The server that a process of `command` is, or will be."""
        return VllmServer(
            child,
            base_url=url_of(self._host, port),
            model_name=Path(config.model).name,
            api_key=self._api_key,
            memory=drafts_memory(config),
            weights=weights,
        )

    def wait(self, server: VllmServer, child: ChildProcess) -> None:
        """Until it is healthy.

        Raises:
            EngineError: it ended before, with the kind that its log says, or was not healthy in time.
        """
        try:
            server.launch_s = child.wait_healthy(server.is_healthy, timeout_s=self._launch_timeout_s)
        except EngineError as error:
            status = child.exit_status()
            raise error if status is None else server.failure(status, was_healthy=False) from None

    def write_options(
        self, config: EngineConfig, path: Path, *, report: Callable[[str], None] = lambda _text: None
    ) -> Path:
        """The candidate's YAML, from which `vllm serve --config` starts by itself too.

        Args:
            report: is told what is done while a quantized checkpoint is made.
        """
        return _write_yaml(config, self.checkpoint(config, report=report), path)

    def checkpoint(self, config: EngineConfig, *, report: Callable[[str], None] = lambda _text: None) -> Path | None:
        """The folder of quantized weights that it loads in place of `config.model`; None: it needs none."""
        wanted = needs_checkpoint(config.quantization, on_cpu=self.environment.is_cpu_build)
        if not wanted or self._checkpoints is None:
            return None
        return self._checkpoints(config, report=lambda text: report(f"quantized checkpoint: {text}"))

    def command(
        self,
        config: EngineConfig,
        options: Path,
        *,
        host: str,
        port: int,
        served_model_name: str | None = None,
        with_resets: bool = False,
    ) -> list[str]:
        """`vllm serve` with what belongs to this launch alone beside the config file.

        Args:
            with_resets: let `VllmServer.reset_prefix_cache` empty what suffix decoding remembers too.
        """
        where = ["--host", host, "--port", str(port)]
        name = ["--served-model-name", served_model_name or Path(config.model).name]
        quiet = [f"--{_QUIET}"] if _QUIET in self.environment.known_options.options else []
        forgets = with_resets and drafts_memory(config) is DraftsMemory.CAN_BE_EMPTIED
        own_cache = config.kv_cache_memory_bytes is not None
        return [
            *self.environment.command(own_cache=own_cache),
            "--config",
            str(options.absolute()),
            *where,
            *name,
            *(["--worker-extension-cls", FORGETS] if forgets else []),
            *quiet,
        ]

    def variables(self, config: EngineConfig, scratch: Path, *, with_resets: bool = True) -> dict[str, str]:
        """The environment variables of a launch.

        Args:
            scratch: where vLLM leaves its sockets and rendezvous files, of which it removes few.
            with_resets: expose the calls for development, of which measuring needs /reset_prefix_cache, and
                /collective_rpc where drafts come from earlier answers.
        """
        variables = self.environment.variables | {"TMPDIR": str(scratch)}
        # compiled code outlives a launch: by default it is where temporary files are
        variables |= {"TORCHINDUCTOR_CACHE_DIR": str(self.environment.compile_cache)}
        if self.environment.is_cpu_build:
            variables |= cpu_variables(config, self._cores, kv_cache_gib=KV_CACHE_GIB)
        if with_resets:
            variables |= {"VLLM_SERVER_DEV_MODE": "1"}
            if drafts_memory(config) is DraftsMemory.CAN_BE_EMPTIED:
                path = variables.get("PYTHONPATH") or os.environ.get("PYTHONPATH")
                variables |= {"PYTHONPATH": os.pathsep.join(filter(None, (str(INSIDE), path)))}
        if self._api_key is not None:
            variables |= {"VLLM_API_KEY": self._api_key}
        return variables


def _write_yaml(config: EngineConfig, checkpoint: Path | None, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(vllm_options(config, checkpoint=checkpoint), sort_keys=False))
    return path


def drafts_memory(config: EngineConfig) -> DraftsMemory:
    """Whether a launch of this config for measuring drafts from earlier answers, and can be made to forget them.

    Another machine's workers do not have our call, and a user's own extension of the workers stands where it would.
    """
    if config.speculative_config is None or config.speculative_config.method != "suffix":
        return DraftsMemory.NONE
    own = {name.lstrip("-").replace("_", "-") for name in config.engine_args}
    is_reached = config.distributed_executor_backend != "ray" and "worker-extension-cls" not in own
    return DraftsMemory.CAN_BE_EMPTIED if is_reached else DraftsMemory.STAYS
