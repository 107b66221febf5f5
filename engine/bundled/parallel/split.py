"""Whether a model can be split over ranks, found without torch."""

from __future__ import annotations

from engine.bundled.model_config import ModelConfig


def split_obstacle(config: ModelConfig, size: int) -> str | None:
    """Why a model cannot be split over so many ranks, and over how many it can."""
    parts = (config.num_heads, config.num_kv_heads, config.intermediate_size)
    if any(part % size for part in parts):
        fitting = [n for n in range(1, size) if not any(part % n for part in parts)]
        heads = f"{config.num_heads} attention heads, {config.num_kv_heads} key-value heads"
        return (
            f"tensor_parallel_size {size} does not divide the model ({heads}, {config.intermediate_size} hidden "
            f"units). Use {fitting[-1]}"
        )
    if size > 1 and config.stored_formats:
        return (
            f"tensor_parallel_size {size}: layers that are stored quantized are not split. Use 1, or the unquantized "
            "checkpoint with quantization.weights"
        )
    return None
