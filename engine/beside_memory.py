"""Weights that an engine holds beside its model: a draft model, Medusa heads, an EAGLE head, LoRA adapters.

Does not know caches: the KV of a draft is in `engine/memory.py`.
"""

from __future__ import annotations

import math
from pathlib import Path

from engine.bundled.errors import CheckpointError
from engine.bundled.head_config import load_medusa_config
from engine.checkpoint_tensors import tensor_shapes
from engine.config import EngineConfig
from engine.model_shape import ModelShape

_EAGLE = ("eagle", "eagle3")
_FLOAT32_BYTES = 4  # the bundled engine's adapters


def medusa_bytes(shape: ModelShape, *, num_heads: int, num_layers: int, number_bytes: int) -> int:
    """num_heads x (num_layers x hidden x hidden + vocabulary x hidden): each head has an output layer of its own."""
    hidden = shape.hidden_size
    return num_heads * hidden * (num_layers * hidden + shape.vocab_size) * number_bytes


def eagle_bytes(head: ModelShape, *, number_bytes: int) -> int:
    """The head's layers, a norm each, and the matrix hidden x 2 hidden before them; tables are the model's."""
    hidden = head.hidden_size
    return (head.num_linear_parameters + head.num_hidden_layers * hidden + 2 * hidden * hidden) * number_bytes


def adapter_slot_bytes(shape: ModelShape, *, rank: int, split: int, number_bytes: int) -> int:
    """One LoRA adapter of a rank on all matrices, A [rank, in] and B [out, rank], on one of `split` devices.

    A matrix split by rows (query, key, value, gate, up) splits B; one split by columns (output, down) splits A.
    """
    *attention, output, gate, up, down = shape.linear_shapes
    numbers = sum(columns + rows // split for rows, columns in (*attention, gate, up))
    numbers += sum(columns // split + rows for rows, columns in (output, down))
    return shape.num_hidden_layers * rank * numbers * number_bytes


def head_bytes(config: EngineConfig, shape: ModelShape, head: ModelShape | None, *, number_bytes: int) -> int:
    """Of Medusa or EAGLE heads, which no split divides; 0 for other methods, and for heads that cannot be read.

    Args:
        head: of an EAGLE head's folder.
    """
    speculation = config.speculative_config
    if speculation is not None and speculation.method == "medusa":
        try:
            heads = load_medusa_config(Path(speculation.model or ""))
        except CheckpointError:
            return 0  # refused for that
        return medusa_bytes(shape, num_heads=heads.num_heads, num_layers=heads.num_layers, number_bytes=number_bytes)
    if speculation is not None and speculation.method in _EAGLE and head is not None:
        return eagle_bytes(head, number_bytes=number_bytes)
    return 0


def adapter_bytes(config: EngineConfig, shape: ModelShape, *, number_bytes: int) -> int:
    """Of all adapters in the bundled engine; elsewhere `max_loras` slots of `max_lora_rank`, as vLLM reserves them."""
    if not config.lora_modules:
        return 0
    if config.engine == "bundled":
        return sum(_stored_numbers(Path(folder)) for folder in config.lora_modules.values()) * _FLOAT32_BYTES
    slot = adapter_slot_bytes(
        shape, rank=config.max_lora_rank, split=config.tensor_parallel_size, number_bytes=number_bytes
    )
    return config.max_loras * slot


def _stored_numbers(folder: Path) -> int:
    """0 for a folder that cannot be read, which is refused for that."""
    try:
        return sum(math.prod(shape) for shape in tensor_shapes(folder).values())
    except ValueError:
        return 0
