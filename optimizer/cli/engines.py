"""The backend a study or a server runs on, by its name.

Does not launch it.
"""

from __future__ import annotations

import sys
from difflib import get_close_matches
from pathlib import Path

import click

from engine.artifacts.store import DIRECTORY_VARIABLE
from engine.backend import Backend
from engine.bundled_backend import BundledBackend
from engine.command_backend import CommandBackend
from engine.registry import BACKENDS
from engine.vllm_server.backend import Checkpoints, VllmBackend
from engine.vllm_server.environment import VllmEnvironment
from optimizer.cli.progress import stderr_console
from optimizer.errors import OptimizerError
from optimizer.placement import Placement

VLLM_PYTHON = click.option(
    "--vllm-python",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="FOPT_VLLM_PYTHON",
    metavar="PATH",
    help="Engine vllm: the Python that has vLLM. Default: $FOPT_VLLM_PYTHON, else fopt's own.",
)


QUANTIZER_PYTHON = click.option(
    "--quantizer-python",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="FOPT_QUANTIZER_PYTHON",
    metavar="PATH",
    help="Engine vllm: the Python that has llmcompressor, for quantized checkpoints. Default: $FOPT_QUANTIZER_PYTHON.",
)
STORE_DIRECTORY = click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help=f"The cache. Default: ${DIRECTORY_VARIABLE}, else fireoptimizer/artifacts in the user's cache folder.",
)
_MADE_BY_QUANTIZER = ("int8", "int4_g128", "int4_g32", "nvfp4")


def own_space(engine: str, vllm_python: Path | None) -> str | None:
    """The name of an engine's own search space where it has one of another name; vLLM's depends on its build.

    Raises:
        EngineError: that Python has no vLLM.
    """
    if engine != "vllm":
        return None
    return "vllm-cpu" if VllmEnvironment(_python(vllm_python)).is_cpu_build else "vllm"


def space_values(engine: str, vllm_python: Path | None, quantizer_python: Path | None) -> dict[str, str | None]:
    """Values for a space's placeholders that depend on what the engine's environment has; None: it lacks it.

    Raises:
        EngineError: that Python has no vLLM.
    """
    if engine != "vllm":
        return {}
    known = VllmEnvironment(_python(vllm_python)).known_options
    runs = [name for name in _MADE_BY_QUANTIZER if known.has_int4 or not name.startswith("int4")]
    made = {name: name if quantizer_python and name in runs else None for name in _MADE_BY_QUANTIZER}
    fp8_kv = "fp8" if known.has_fp8_kv_cache else None
    return {"suffix": "suffix" if known.has_suffix_decoding else None, "fp8_kv": fp8_kv, **made}


def _announce_question(environment: VllmEnvironment) -> None:
    """Half a minute of silence would look like a hang.

    Raises:
        EngineError: that Python has no vLLM.
    """
    if not environment.was_asked:
        stderr_console().print(f"asking vLLM {environment.version} for its options (once; takes half a minute)")


def _python(given: Path | None) -> str:
    return sys.executable if given is None else str(given)


def make_backend(
    name: str,
    placement: Placement,
    *,
    reconfigurable: bool = False,
    vllm_python: Path | None = None,
    checkpoints: Checkpoints | None = None,
) -> Backend:
    """The backend with its engine on the placement's cores and GPUs.

    Args:
        reconfigurable: servers that can take another config without a restart, where the engine has them.
        vllm_python: the interpreter that has vLLM; None: our own.
        checkpoints: gives the folder of quantized weights that a vLLM config needs.

    Raises:
        OptimizerError: no engine of that name.
    """
    if name == "simulated":
        raise OptimizerError(
            "this config is a prediction of the simulator: there is nothing to launch. Start it on its hardware with "
            "vLLM (best.vllm.yaml), or measure with `fopt run --engine bundled`"
        )
    if name not in BACKENDS:
        known = [*BACKENDS, "simulated"]
        close = get_close_matches(name, known, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Choose from: {', '.join(known)}"
        raise OptimizerError(f"no engine is called {name!r}. {hint}")
    cpus = frozenset(placement.engine_cores) if placement.engine_cores else None
    if name == "bundled":
        return BundledBackend(cpus=cpus, devices=placement.devices, reconfigurable=reconfigurable)
    if name == "command":
        return CommandBackend(cpus=cpus, devices=placement.devices)
    if name == "vllm":
        backend = VllmBackend(
            python=_python(vllm_python), cpus=cpus, devices=placement.devices, checkpoints=checkpoints
        )
        _announce_question(backend.environment)
        return backend
    return BACKENDS[name]()
