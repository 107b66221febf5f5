"""Where the model, its draft and its heads are: what the user said, else what the workload says.

Does not read weights: `Backend.check` does that part.
"""

from __future__ import annotations

from pathlib import Path

from optimizer.errors import OptimizerError
from workloads.workload import Workload


def find_model(given: Path | None, workload: Workload, workload_path: Path) -> str:
    """`--model`, else the workload's default model, looked for from here and from the workload's folder.

    Raises:
        OptimizerError: neither names a folder that exists.
    """
    if given is not None:
        return _existing(given)
    named = workload.metadata.model
    if named is None:
        raise OptimizerError(f"{workload_path} names no model. Give its folder with --model DIR")
    for place in (Path(named), *(parent / named for parent in workload_path.resolve().parents)):
        if place.is_dir():
            return shortest(place)
    raise OptimizerError(f"the workload's model {named!r} is not a folder here. Give its folder with --model DIR")


def find_simulated_model(given: Path | None, workload: Workload, workload_path: Path) -> str:
    """`--model`, a folder or a name that the simulator knows; else as `find_model`.

    Raises:
        OptimizerError: the workload names no model that exists.
    """
    if given is None:
        return find_model(None, workload, workload_path)
    return shortest(given) if given.is_dir() else str(given)


def find_beside(name: str, given: Path | None, model: str) -> str | None:
    """The folder given (`--draft`, `--medusa`, `--eagle`), else one called `name` beside the model's, else None."""
    if given is not None:
        return _existing(given)
    sibling = Path(model).parent / name
    return shortest(sibling) if (sibling / "config.json").is_file() else None


def _existing(folder: Path) -> str:
    if not folder.is_dir():
        raise OptimizerError(
            f"no model folder at {folder}. Give a Hugging Face folder with config.json and *.safetensors"
        )
    return shortest(folder)


def shortest(folder: Path) -> str:
    """Relative to the current folder when below it."""
    here, there = Path.cwd().resolve(), folder.resolve()
    return str(there.relative_to(here)) if there.is_relative_to(here) else str(there)
