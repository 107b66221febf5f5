"""The backend a study or a server runs on, by its name.

Does not launch it.
"""

from __future__ import annotations

from difflib import get_close_matches

from engine.backend import Backend
from engine.bundled_backend import BundledBackend
from engine.command_backend import CommandBackend
from engine.registry import BACKENDS
from optimizer.errors import OptimizerError
from optimizer.placement import Placement


def make_backend(name: str, placement: Placement, *, reconfigurable: bool = False) -> Backend:
    """The backend with its engine on the placement's cores.

    Args:
        reconfigurable: servers that can take another config without a restart, where the engine has them.

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
        return BundledBackend(cpus=cpus, reconfigurable=reconfigurable)
    if name == "command":
        return CommandBackend(cpus=cpus)
    return BACKENDS[name]()
