"""Memory arithmetic: what a config's weights and KV cache take, and what this machine has left.

On this machine only weights and KV count; on a GPU (`device_memory`) the largest step and a reserve do too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

from engine.beside_memory import adapter_bytes, head_bytes
from engine.bundled.layer_formats import MODULES, Formats
from engine.config import EngineConfig, KvCacheFormat, WeightFormat
from engine.model_shape import ModelShape

_INT4_GROUP = {f"int4_g{group}{suffix}": group for group in (32, 64, 128) for suffix in ("", "_asym")}
_NVFP4_GROUP = 16
_KV_SCALE_BYTES = 4  # per token and head of an int8 cache
_CGROUP = Path("/sys/fs/cgroup")


def dtype_bytes(shape: ModelShape, dtype: str) -> int:
    """Bytes of one number as the engine holds it; `auto` is what the checkpoint says."""
    return 4 if (shape.dtype if dtype == "auto" else dtype) == "float32" else 2


def int4_group(weights: WeightFormat) -> int | None:
    """Columns that share a scale, for the int4 formats."""
    return _INT4_GROUP.get(weights)


def weight_bytes(
    shape: ModelShape, *, weights: WeightFormat = "bf16", dtype: str = "auto", formats: Formats | None = None
) -> int:
    """Bytes of all weights: layer matrices in their format with scales, the rest in `dtype`.

    Args:
        formats: of single modules, in place of `weights`.
    """
    number = dtype_bytes(shape, dtype)
    of_matrices = 0
    for layer in range(shape.num_hidden_layers):
        for module, (rows, columns) in zip(MODULES, shape.linear_shapes, strict=True):
            form = formats[f"model.layers.{layer}.{module}"].weights if formats else weights
            of_matrices += _matrix_bytes(rows, columns, form, number)
    return of_matrices + shape.num_other_parameters * number


def _matrix_bytes(rows: int, columns: int, weights: WeightFormat, number: int) -> int:
    if weights == "bf16":
        return rows * columns * number
    if weights == "nvfp4":
        return rows * columns // 2 + rows * -(-columns // _NVFP4_GROUP)  # an 8-bit scale per group
    if weights in ("int8", "fp8"):
        return rows * columns + rows * number  # a scale per row
    groups = -(-columns // _INT4_GROUP[weights])
    return rows * columns // 2 + rows * groups * (number + weights.endswith("_asym"))  # a scale, and a zero point


def kv_bytes_per_token(shape: ModelShape, *, dtype: str = "auto", kv_cache: KvCacheFormat = "bf16") -> int:
    """Keys and values of one token in all layers."""
    number = dtype_bytes(shape, dtype) if kv_cache == "bf16" else 1
    scale = _KV_SCALE_BYTES if kv_cache == "int8" else 0
    return 2 * shape.num_hidden_layers * shape.num_key_value_heads * (shape.head_dim * number + scale)


def one_sequence_bytes(config: EngineConfig, shape: ModelShape, draft: ModelShape | None = None) -> int:
    """KV of one sequence of max_model_len in whole blocks, the draft's included."""
    num_tokens = config.max_model_len or shape.max_position_embeddings
    num_blocks = -(-num_tokens // config.block_size)
    dtype = _dtype(config, shape)
    models = [shape] if draft is None else [shape, draft]
    form = config.quantization.kv_cache
    per_token = sum(kv_bytes_per_token(model, dtype=dtype, kv_cache=form) for model in models)
    return num_blocks * config.block_size * per_token


def required_bytes(
    config: EngineConfig,
    shape: ModelShape,
    draft: ModelShape | None = None,
    formats: Formats | None = None,
    *,
    stored_quantized: bool = False,
) -> int:
    """Least memory that serves one sequence of max_model_len: the peak of loading and of serving.

    Loading holds the unquantized weights, unless they are stored quantized; serving holds the quantized ones, the
    draft's or the heads', the adapters, and the KV of model and draft (or the cache asked for).

    Args:
        formats: of single modules, in place of the config's weight format.
    """
    dtype = _dtype(config, shape)
    quantized = weight_bytes(shape, weights=config.quantization.weights, dtype=dtype, formats=formats)
    loading = quantized if stored_quantized else weight_bytes(shape, dtype=dtype)
    cache = config.kv_cache_memory_bytes or one_sequence_bytes(config, shape, draft)
    return max(loading, quantized + beside_bytes(config, shape, draft) + cache)


def beside_bytes(config: EngineConfig, shape: ModelShape, draft: ModelShape | None = None) -> int:
    """Weights beside the model's on one device: a draft's or heads', which no split divides, and adapters.

    Args:
        draft: of a draft model or an EAGLE head.
    """
    dtype = _dtype(config, shape)
    number, speculation = dtype_bytes(shape, dtype), config.speculative_config
    drafting = head_bytes(config, shape, draft, number_bytes=number)
    if draft is not None and speculation is not None and speculation.method == "draft_model":
        drafting = weight_bytes(draft, dtype=dtype)
    return drafting + adapter_bytes(config, shape, number_bytes=number)


@dataclass(frozen=True, kw_only=True)
class DeviceMemory:
    """What one of the `tensor_parallel_size` devices of a replica holds, in bytes.

    `activations_bytes` is the largest step's: residual stream, one layer's products, logits. `graphs_bytes` is what
    CUDA contexts, graphs and communication take: a reserve, not a measurement.
    """

    usable_bytes: int
    weights_bytes: int
    activations_bytes: int
    graphs_bytes: int
    block_bytes: int
    blocks_needed: int  # for one sequence of max_model_len

    @property
    def num_blocks(self) -> int:
        """KV blocks that fit beside the rest; negative when not even the rest fits."""
        return (self.usable_bytes - self.weights_bytes - self.activations_bytes - self.graphs_bytes) // self.block_bytes

    @property
    def fits(self) -> bool:
        """Whether one sequence of max_model_len can be served."""
        return self.num_blocks >= self.blocks_needed


MEMORY_SHARE = 0.9  # of a device, for the engine: vLLM's gpu_memory_utilization
_GRAPHS_BYTES = 2 * 2**30


def device_memory(
    config: EngineConfig, shape: ModelShape, memory_gib: float, draft: ModelShape | None = None
) -> DeviceMemory:
    """A config on devices of a SKU; matrices and heads are split over them, norms and drafts are not.

    Args:
        memory_gib: usable by an engine, of one device.
    """
    split, dtype = config.tensor_parallel_size, _dtype(config, shape)
    number = dtype_bytes(shape, dtype)
    weights = -(-weight_bytes(shape, weights=config.quantization.weights, dtype=dtype) // split)
    heads = max(1, shape.num_key_value_heads / split)  # fewer heads than devices: each keeps a whole one
    form = config.quantization.kv_cache
    per_token = kv_bytes_per_token(shape, dtype=dtype, kv_cache=form) * heads / shape.num_key_value_heads
    weights += beside_bytes(config, shape, draft)
    if draft is not None:
        per_token += kv_bytes_per_token(draft, dtype=dtype, kv_cache=form)
    widths = (
        2 * shape.hidden_size + (shape.query_size + 2 * shape.key_value_size + 2 * shape.intermediate_size) // split
    )
    num_tokens = config.max_model_len or shape.max_position_embeddings
    return DeviceMemory(
        usable_bytes=int(memory_gib * 2**30 * MEMORY_SHARE),
        weights_bytes=weights,
        activations_bytes=config.max_num_batched_tokens * widths * number + config.max_num_seqs * shape.vocab_size * 4,
        graphs_bytes=_GRAPHS_BYTES,
        block_bytes=int(per_token * config.block_size),
        blocks_needed=-(-num_tokens // config.block_size),
    )


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
