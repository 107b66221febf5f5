"""`--devices`: the GPUs that the engines of a study may use.

Does not give any to an engine: the backend does, a launch at a time.
"""

from __future__ import annotations

import click

from engine.backend import Backend
from engine.devices import VARIABLE, visible_devices
from engine.vllm_server.backend import VllmBackend
from optimizer.errors import OptimizerError

DEVICES = click.option(
    "--devices",
    metavar="0,1",
    help="GPUs that engines may use: numbers or ids, of those that CUDA_VISIBLE_DEVICES names if set. Default: all.",
)
_LAUNCHED_HERE = ("bundled", "vllm", "command")


def chosen_devices(text: str | None, engine: str) -> tuple[str, ...] | None:
    """The devices that were asked for; None: nobody asked.

    Raises:
        OptimizerError: it is no list of devices that are here, or the engine does not run on this machine.
    """
    if text is None:
        return None
    if engine not in _LAUNCHED_HERE:
        known = ", ".join(_LAUNCHED_HERE)
        raise OptimizerError(f"--devices is for engines that are launched here ({known}). Leave it out")
    chosen = tuple(part.strip() for part in text.split(","))
    if not all(chosen) or len(set(chosen)) < len(chosen):
        raise OptimizerError(f"--devices {text!r}: give each device once, with commas between, such as 0,1")
    visible = visible_devices()
    if not visible:
        raise OptimizerError("no NVIDIA GPU is visible here: --devices has nothing to choose from. Leave it out")
    if missing := [device for device in chosen if device not in visible]:
        raise OptimizerError(
            f"--devices {missing[0]}: none of those that may be used here ({', '.join(visible)}). {VARIABLE} and the "
            "machine's GPUs say which there are"
        )
    return chosen


def refuse_devices_without_effect(text: str | None, backend: Backend) -> None:
    """Raises OptimizerError for --devices with an engine that does not use GPUs."""
    if text is not None and isinstance(backend, VllmBackend) and backend.environment.is_cpu_build:
        raise OptimizerError(
            "--devices has no effect on vLLM's CPU build. Give the Python of a GPU build, or leave it out"
        )
