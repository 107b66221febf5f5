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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from engine.backend import Backend
from engine.config import EngineConfig, dump_engine_config
from engine.process import kept, port_in_use
from engine.vllm_server.backend import VllmBackend
from optimizer.cli.engines import VLLM_PYTHON, make_backend
from optimizer.cli.progress import stderr_console
from optimizer.errors import OptimizerError
from optimizer.placement import Placement
from reports.deployment import read_deployment


@click.command("serve", epilog="Example:  fopt serve runs/<study>/best.yaml --port 8000")
@click.argument("deployment", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--model", type=click.Path(path_type=Path, file_okay=False), help="Serve this folder with the default config."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--served-model-name", help="What requests call the model. Default: the folder as the config names it.")
@click.option("--api-key-env", metavar="VAR", help="Environment variable that holds the key clients must send.")
@VLLM_PYTHON
def command(
    deployment: Path | None,
    model: Path | None,
    host: str,
    port: int,
    served_model_name: str | None,
    api_key_env: str | None,
    vllm_python: Path | None,
) -> None:
    """Start the engine from DEPLOYMENT (a best.yaml, or a bare engine config) and serve the OpenAI HTTP API.

    Weights are checked against the hashes in the file first. Ctrl-C stops the server."""
    config = _config(deployment, model)
    backend = make_backend(config.engine, Placement(engine_cores=None, client_cores=None), vllm_python=vllm_python)
    _check(backend, config, host, port, api_key_env)
    wishes = _Wishes(host=host, port=port, served_model_name=served_model_name, api_key_env=api_key_env)
    _announce(config, host, port)
    sys.exit(_serve(backend, config, wishes))


@dataclass(frozen=True, kw_only=True)
class _Wishes:
    host: str
    port: int
    served_model_name: str | None
    api_key_env: str | None


def _config(deployment: Path | None, model: Path | None) -> EngineConfig:
    if (deployment is None) == (model is None):
        raise click.UsageError("give a best.yaml, or --model DIR, one of the two.")
    if model is not None:
        return EngineConfig(model=str(model))
    assert deployment is not None
    return read_deployment(deployment, verify=True).config


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
    console.print(
        f"serving {config.model} ({config.label(EngineConfig(model=config.model))}) at http://{host}:{port}/v1"
    )
    console.print(f"try:  curl http://{host}:{port}/v1/models")


def _serve(backend: Backend, config: EngineConfig, wishes: _Wishes) -> int:
    """Run the server in the foreground; its exit status is ours, and a stop we were asked for is success."""
    with tempfile.TemporaryDirectory(prefix="fopt-serve-") as folder:
        if isinstance(backend, VllmBackend):
            command, variables = _vllm(backend, config, wishes, Path(folder))
            process = subprocess.Popen(command, env={**os.environ, **variables}, process_group=0)
            last_resort = signal.SIGUSR1  # the keeper then kills the group and cleans up
        else:
            process = subprocess.Popen(_bundled(config, wishes, Path(folder)), process_group=0)
            last_resort = signal.SIGKILL
        with _stopping(process, last_resort):
            return process.wait()
    return 0


def _bundled(config: EngineConfig, wishes: _Wishes, folder: Path) -> list[str]:
    file = folder / "config.yaml"
    file.write_text(dump_engine_config(config))
    where = ["--config", str(file), "--host", wishes.host, "--port", str(wishes.port)]
    name = ["--served-model-name", wishes.served_model_name] if wishes.served_model_name else []
    key = ["--api-key-env", wishes.api_key_env] if wishes.api_key_env else []
    return [sys.executable, "-m", "engine.bundled.server", *where, "--parent-pid", str(os.getpid()), *name, *key]


def _vllm(
    backend: VllmBackend, config: EngineConfig, wishes: _Wishes, folder: Path
) -> tuple[list[str], dict[str, str]]:
    """vLLM does not watch its parent: a keeper does."""
    options = backend.write_options(config, folder / "vllm.yaml")
    name = wishes.served_model_name or config.model
    command = backend.command(config, options, host=wishes.host, port=wishes.port, served_model_name=name)
    variables = backend.variables(config, folder, with_resets=False)
    if wishes.api_key_env:
        variables["VLLM_API_KEY"] = os.environ[wishes.api_key_env]
    return kept(command, scratch=folder), variables


@contextlib.contextmanager
def _stopping(process: subprocess.Popen[bytes], last_resort: signal.Signals) -> Iterator[None]:
    """Ctrl-C and SIGTERM reach the server as SIGTERM; nothing is left behind."""
    try:
        yield
    except KeyboardInterrupt:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.send_signal(last_resort)
            process.wait()
        sys.exit(0)
