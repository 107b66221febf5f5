"""`fopt serve`: the serving layer's door: start exactly what a best.yaml holds, or a model with the default config.

Does not measure.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import click

from engine.backend import Backend
from engine.command_backend import started_by
from engine.config import EngineConfig, dump_engine_config
from engine.endpoint_backend import URL
from engine.process import kept, port_in_use
from engine.vllm_server.backend import VllmBackend
from optimizer.cli.adapters import LORA_MODULES, with_adapters
from optimizer.cli.checkpoints import deployed_checkpoints
from optimizer.cli.engines import QUANTIZER_PYTHON, VLLM_PYTHON, make_backend
from optimizer.cli.progress import stderr_console
from optimizer.errors import OptimizerError
from optimizer.placement import Placement
from optimizer.results import Deployment
from reports.deployment import bare_deployment, read_deployment

_FAREWELL_S = 10.0  # beyond the drain; then the server is killed


@click.command("serve", epilog="Example:  fopt serve runs/<study>/best.yaml --port 8000")
@click.argument("deployment", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--model", type=click.Path(path_type=Path, file_okay=False), help="Serve this folder with the default config."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--served-model-name", help="What requests call the model. Default: the folder as the config names it.")
@click.option("--api-key-env", metavar="VAR", help="Environment variable that holds the key clients must send.")
@click.option("--max-requests", type=click.IntRange(min=1), help="Answers in flight; more get a 429. Default: 8192.")
@click.option("--drain", "drain_s", default=30.0, show_default=True, type=click.FloatRange(min=0), metavar="SECONDS",
              help="On a stop, time for answers under way; new requests and /health get a 503.")  # fmt: skip
@LORA_MODULES
@VLLM_PYTHON
@QUANTIZER_PYTHON
def command(
    deployment: Path | None,
    model: Path | None,
    host: str,
    port: int,
    served_model_name: str | None,
    api_key_env: str | None,
    max_requests: int | None,
    drain_s: float,
    lora_modules: tuple[str, ...],
    vllm_python: Path | None,
    quantizer_python: Path | None,
) -> None:
    """Start the engine from DEPLOYMENT (a best.yaml, or a bare engine config) and serve the OpenAI HTTP API.

    Weights are checked against the hashes in the file first. Ctrl-C lets running
    answers end, then stops; a second one stops at once."""
    found = _deployment(deployment, model)
    config = with_adapters(found.config, lora_modules)
    _refuse_what_is_not_served(config, api_key_env)
    backend = make_backend(
        config.engine,
        Placement(engine_cores=None, client_cores=None),
        vllm_python=vllm_python,
        checkpoints=deployed_checkpoints(found, deployment, quantizer_python),
    )
    _check(backend, config, host, port, api_key_env)
    wishes = _Wishes(
        host=host,
        port=port,
        served_model_name=served_model_name,
        api_key_env=api_key_env,
        max_requests=max_requests,
        drain_s=drain_s,
    )
    _announce(config, host, port)
    sys.exit(_serve(backend, config, wishes))


@dataclass(frozen=True, kw_only=True)
class _Wishes:
    host: str
    port: int
    served_model_name: str | None
    api_key_env: str | None
    max_requests: int | None
    drain_s: float


def _deployment(deployment: Path | None, model: Path | None) -> Deployment:
    if (deployment is None) == (model is None):
        raise click.UsageError("give a best.yaml, or --model DIR, one of the two.")
    if model is not None:
        return bare_deployment(EngineConfig(model=str(model)))
    assert deployment is not None
    return read_deployment(deployment, verify=True)


def _refuse_what_is_not_served(config: EngineConfig, api_key_env: str | None) -> None:
    if config.engine == "endpoint":
        url = config.engine_args.get(URL)
        raise OptimizerError(f"this file holds the measurement of a running server, {url}: there is nothing to start")
    if config.engine == "command" and api_key_env:
        raise OptimizerError(
            "--api-key-env is not for engine command: its server takes a key by launch.command, or not"
        )


def _check(backend: Backend, config: EngineConfig, host: str, port: int, api_key_env: str | None) -> None:
    refusals = backend.check(config)
    if refusals:
        raise OptimizerError(f"this config cannot run here: {refusals[0].reason}")
    if port_in_use(port, host):
        raise OptimizerError(f"port {port} on {host} is in use. Choose another with --port")
    if api_key_env and not os.environ.get(api_key_env):
        raise OptimizerError(f"--api-key-env {api_key_env}: that environment variable is empty. Set it to the key")


def _announce(config: EngineConfig, host: str, port: int) -> None:
    console = stderr_console()
    plain = EngineConfig(model=config.model, engine=config.engine)
    console.print(f"serving {config.model} ({config.label(plain)}) at http://{host}:{port}/v1")
    console.print(f"try:  curl http://{host}:{port}/v1/models")


class _Start(NamedTuple):
    """A server's command, its own environment variables, and the signal that ends what does not end by itself."""

    command: list[str]
    variables: Mapping[str, str] = {}
    last_resort: signal.Signals = signal.SIGKILL


def _serve(backend: Backend, config: EngineConfig, wishes: _Wishes) -> int:
    """Run the server in the foreground; its exit status is ours, and a stop we were asked for is success."""
    with tempfile.TemporaryDirectory(prefix="fopt-serve-") as folder:
        start = _start_of(backend, config, wishes, Path(folder))
        process = subprocess.Popen(start.command, env={**os.environ, **start.variables}, process_group=0)
        with _stopping(process, start.last_resort, drain_s=wishes.drain_s):
            return process.wait()
    return 0


def _start_of(backend: Backend, config: EngineConfig, wishes: _Wishes, folder: Path) -> _Start:
    if isinstance(backend, VllmBackend):
        return _vllm(backend, config, wishes, folder)
    if config.engine == "command":
        started = started_by(config, host=wishes.host, port=wishes.port, model_name=wishes.served_model_name)
        return _Start(kept(started.command), started.environment, signal.SIGUSR1)
    return _Start(_bundled(config, wishes, folder))


def _bundled(config: EngineConfig, wishes: _Wishes, folder: Path) -> list[str]:
    file = folder / "config.yaml"
    file.write_text(dump_engine_config(config))
    where = ["--config", str(file), "--host", wishes.host, "--port", str(wishes.port)]
    name = ["--served-model-name", wishes.served_model_name] if wishes.served_model_name else []
    key = ["--api-key-env", wishes.api_key_env] if wishes.api_key_env else []
    most = ["--max-requests", str(wishes.max_requests)] if wishes.max_requests else []
    options = [*name, *key, *most, "--drain-s", str(wishes.drain_s)]
    return [sys.executable, "-m", "engine.bundled.server", *where, "--parent-pid", str(os.getpid()), *options]


def _vllm(backend: VllmBackend, config: EngineConfig, wishes: _Wishes, folder: Path) -> _Start:
    """vLLM does not watch its parent: a keeper does, and on SIGUSR1 kills the group and cleans up."""
    options = backend.write_options(config, folder / "vllm.yaml", report=stderr_console().print)
    name = wishes.served_model_name or config.model
    command = backend.command(config, options, host=wishes.host, port=wishes.port, served_model_name=name)
    variables = backend.variables(config, folder, with_resets=False)
    if wishes.api_key_env:
        variables["VLLM_API_KEY"] = os.environ[wishes.api_key_env]
    return _Start(kept(command, scratch=folder), variables, signal.SIGUSR1)


@contextlib.contextmanager
def _stopping(process: subprocess.Popen[bytes], last_resort: signal.Signals, *, drain_s: float) -> Iterator[None]:
    """Ctrl-C and SIGTERM reach the server as SIGTERM, the second ends it; nothing is left behind."""
    try:
        yield
    except KeyboardInterrupt:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(drain_s + _FAREWELL_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.send_signal(last_resort)
            process.wait()
        sys.exit(0)
