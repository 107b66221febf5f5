"""How many token ids a config's model knows: what prompts without text are drawn from.

Does not read weights or tokenizers.
"""

from __future__ import annotations

from pathlib import Path

from engine.config import EngineConfig
from engine.model_shape import ModelShapeError, load_model_shape


def vocab_size(config: EngineConfig) -> int | None:
    """From the checkpoint's config.json; None where it does not say (the workload's metadata then must)."""
    try:
        return load_model_shape(Path(config.model)).vocab_size
    except ModelShapeError:
        return None
