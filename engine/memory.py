"""Memory arithmetic: what a config's weights and KV cache take, and what this machine has left.

Does not know engines or their overheads: an activation or a workspace is not counted.
"""

from __future__ import annotations

from pathlib import Path

import psutil

from engine.config import EngineConfig, WeightFormat
from engine.model_shape import ModelShape

_INT4_GROUP = {"int4_g32": 32, "int4_g64": 64, "int4_g128": 128}
_CGROUP = Path("/sys/fs/cgroup")


def dtype_bytes(shape: ModelShape, dtype: str) -> int:
    """Bytes of one number as the engine holds it; `auto` is what the checkpoint says."""
    return 4 if (shape.dtype if dtype == "auto" else dtype) == "float32" else 2


def int4_group(weights: WeightFormat) -> int | None:
    """Columns that share a scale, for the int4 formats."""
    return _INT4_GROUP.get(weights)


def weight_bytes(shape: ModelShape, *, weights: WeightFormat = "bf16", dtype: str = "auto") -> int:
    """Bytes of all weights: layer matrices in their format with scales, the rest in `dtype`."""
    number = dtype_bytes(shape, dtype)
    per_layer = sum(_matrix_bytes(rows, columns, weights, number) for rows, columns in shape.linear_shapes)
    return shape.num_hidden_layers * per_layer + shape.num_other_parameters * number


def _matrix_bytes(rows: int, columns: int, weights: WeightFormat, number: int) -> int:
    if weights == "bf16":
        return rows * columns * number
    if weights == "int8":
        return rows * columns + rows * number  # a scale per row
    groups = -(-columns // _INT4_GROUP[weights])
    return rows * columns // 2 + rows * groups * 2 * number  # a scale and a zero per group


def kv_bytes_per_token(shape: ModelShape, *, dtype: str = "auto") -> int:
    """Keys and values of one token in all layers."""
    return 2 * shape.num_hidden_layers * shape.key_value_size * dtype_bytes(shape, dtype)


def one_sequence_bytes(config: EngineConfig, shape: ModelShape, draft: ModelShape | None = None) -> int:
    """KV of one sequence of max_model_len in whole blocks, the draft's included."""
    num_tokens = config.max_model_len or shape.max_position_embeddings
    num_blocks = -(-num_tokens // config.block_size)
    dtype = _dtype(config, shape)
    models = [shape] if draft is None else [shape, draft]
    return num_blocks * config.block_size * sum(kv_bytes_per_token(model, dtype=dtype) for model in models)


def required_bytes(config: EngineConfig, shape: ModelShape, draft: ModelShape | None = None) -> int:
    """Least memory that serves one sequence of max_model_len: the peak of loading and of serving.

    Loading holds the unquantized weights; serving holds the quantized ones, the draft's, and the KV of both
    (or the cache asked for).
    """
    dtype = _dtype(config, shape)
    loading = weight_bytes(shape, dtype=dtype)
    quantized = weight_bytes(shape, weights=config.quantization.weights, dtype=dtype)
    drafting = weight_bytes(draft, dtype=dtype) if draft is not None else 0
    cache = config.kv_cache_memory_bytes or one_sequence_bytes(config, shape, draft)
    return max(loading, quantized + drafting + cache)


def _dtype(config: EngineConfig, shape: ModelShape) -> str:
    """A draft is held in its target's dtype."""
    return shape.dtype if config.dtype == "auto" else config.dtype


def local_available_bytes() -> int:
    """Memory this process may still take: the machine's, or less where a container's limit says so."""
    available: int = psutil.virtual_memory().available
    limit = _container_left_bytes(_CGROUP)
    return available if limit is None else min(available, limit)


def _container_left_bytes(cgroup: Path) -> int | None:
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used)


def plain_bytes(num_bytes: int) -> str:
    """Bytes as people read them, e.g. `1.5 GiB`."""
    if num_bytes < 2**20:
        return f"{num_bytes / 2**10:.1f} KiB"
    return f"{num_bytes / 2**20:.1f} MiB" if num_bytes < 2**30 else f"{num_bytes / 2**30:.1f} GiB"
