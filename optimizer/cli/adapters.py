"""`--lora-modules NAME=DIR`: the LoRA adapters that a server serves beside its model.

Does not read weights: `Backend.check` does that part.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from engine.config import EngineConfig
from optimizer.cli.model_folder import shortest
from optimizer.errors import OptimizerError

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as max_lora_rank

LORA_MODULES = click.option(
    "--lora-modules",
    multiple=True,
    metavar="NAME=DIR",
    help="LoRA adapter that requests name as their model: a Hugging Face PEFT folder. Repeatable.",
)


def with_adapters(config: EngineConfig, given: Sequence[str]) -> EngineConfig:
    """The config with these adapters, all of which one step may mix.

    Raises:
        OptimizerError: no NAME=DIR, a name twice, no such folder, an engine that is not ours to start.
    """
    if not given:
        return config
    if config.engine not in ("bundled", "vllm"):
        raise OptimizerError(f"--lora-modules is for engines bundled and vllm, not for {config.engine}. Leave it out")
    folders: dict[str, str] = {}
    for text in given:
        name, _, folder = text.partition("=")
        if not name or not folder:
            raise OptimizerError(f"--lora-modules {text!r}: write NAME=DIR")
        if name in folders:
            raise OptimizerError(f"--lora-modules: the adapter {name!r} is given twice")
        if not (Path(folder) / "adapter_config.json").is_file():
            raise OptimizerError(f"--lora-modules {name}: {folder} holds no adapter_config.json. Give a PEFT folder")
        folders[name] = shortest(Path(folder))
    rank = max(_rank(Path(folder)) for folder in folders.values())
    fields = {
        "lora_modules": folders,
        "max_loras": len(folders),
        "max_lora_rank": next((allowed for allowed in RANKS if allowed >= rank), rank),
    }
    return config.model_copy(update=fields)


def _rank(folder: Path) -> int:
    """The largest of an adapter's modules; 1 where the file is no sound one, which the engine's check tells."""
    try:
        values = json.loads((folder / "adapter_config.json").read_text())
        return int(max([values["r"], *(values.get("rank_pattern") or {}).values()]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return 1
