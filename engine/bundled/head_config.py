"""`MedusaConfig`: what the `config.json` of a folder of Medusa heads says.

Does not know tensors. EAGLE heads have no config of their own kind: theirs is a `ModelConfig` of one layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.bundled.errors import CheckpointError
from engine.bundled.model_config import read_json


@dataclass(frozen=True, kw_only=True)
class MedusaConfig:
    """Heads in vLLM's layout: each has `num_layers` residual layers and an output layer of its own."""

    hidden_size: int
    vocab_size: int
    num_heads: int
    num_layers: int


def load_medusa_config(folder: Path) -> MedusaConfig:
    """Read the folder's `config.json`.

    Raises:
        CheckpointError: no such folder or file, not a Medusa config, fields missing.
    """
    if not folder.is_dir():
        raise CheckpointError(f"heads folder {folder} does not exist. Give a folder of Medusa heads on this machine")
    raw = read_json(folder / "config.json")
    if raw.get("model_type") != "medusa":
        kind = raw.get("model_type")
        raise CheckpointError(f"{folder} is of model_type {kind}, not medusa. Give a folder of Medusa heads")
    try:
        return MedusaConfig(
            hidden_size=raw["hidden_size"],
            vocab_size=raw["vocab_size"],
            num_heads=raw["num_heads"],
            num_layers=raw.get("num_hidden_layers", 1),
        )
    except KeyError as error:
        raise CheckpointError(f"{folder}/config.json lacks {error}. Check that the heads are complete") from None
