"""Whether a config fits a SKU, and the nearest that would: `Backend.check` for hardware that is not here.

Does not know step times.
"""

from __future__ import annotations

from engine.backend import FailureKind, Refusal
from engine.config import EngineConfig
from engine.memory import device_memory, plain_bytes
from engine.model_shape import ModelShape
from search_spaces.skus import Sku

_SMALLER_WEIGHTS = ("int8", "int4_g128")  # tried, in this order, where no parallel split fits


def sku_refusals(config: EngineConfig, shape: ModelShape, sku: Sku, draft: ModelShape | None = None) -> list[Refusal]:
    """Everything that speaks against running a config on `tensor_parallel_size` devices of a SKU."""
    split = config.tensor_parallel_size
    if shape.num_attention_heads % split:
        reason = f"tensor_parallel_size {split} does not divide the model's {shape.num_attention_heads} attention heads"
        fitting = [n for n in range(1, split) if shape.num_attention_heads % n == 0]
        return [Refusal(reason=f"{reason}. Use {fitting[-1]}", kind=FailureKind.UNSUPPORTED)]
    if split > sku.devices_per_node:
        reason = (
            f"tensor_parallel_size {split} needs {split} {sku.name} in one machine, which has {sku.devices_per_node}"
        )
        return [Refusal(reason=f"{reason}. {_within_a_node(config, shape, sku, draft)}", kind=FailureKind.UNSUPPORTED)]
    if sku.memory_gib is None:
        reason = (
            f"the catalogue does not say how much memory {sku.name} has. Add memory_gib in a private catalogue file"
        )
        return [Refusal(reason=reason, kind=FailureKind.UNSUPPORTED)]
    memory = device_memory(config, shape, sku.memory_gib, draft)
    if memory.fits:
        return []
    fixed = memory.weights_bytes + memory.activations_bytes + memory.graphs_bytes
    wanted = memory.blocks_needed * memory.block_bytes
    reason = (
        f"each of {split} {sku.name} would hold {plain_bytes(fixed)} without the KV cache and {plain_bytes(wanted)} "
        f"for one sequence of max_model_len; {plain_bytes(memory.usable_bytes)} is usable"
    )
    advice = _nearest(config, shape, sku, draft)
    return [Refusal(reason=f"{reason}. {advice}", kind=FailureKind.OUT_OF_MEMORY)]


def num_kv_blocks(config: EngineConfig, shape: ModelShape, sku: Sku, draft: ModelShape | None = None) -> int:
    """KV blocks of one replica; ask `sku_refusals` first."""
    assert sku.memory_gib is not None, "a SKU without memory is refused"
    memory = device_memory(config, shape, sku.memory_gib, draft)
    if config.kv_cache_memory_bytes is not None:
        return min(memory.num_blocks, config.kv_cache_memory_bytes // memory.block_bytes)
    return memory.num_blocks


def kv_block_bytes(config: EngineConfig, shape: ModelShape, sku: Sku, draft: ModelShape | None = None) -> int:
    """Bytes of one KV block on one device; ask `sku_refusals` first."""
    assert sku.memory_gib is not None, "a SKU without memory is refused"
    return device_memory(config, shape, sku.memory_gib, draft).block_bytes


def _nearest(config: EngineConfig, shape: ModelShape, sku: Sku, draft: ModelShape | None) -> str:
    """The narrowest wider split of one machine that fits, and the longest sequence where only the KV cache is small."""
    found = _within_a_node(config, shape, sku, draft, from_split=config.tensor_parallel_size + 1)
    assert sku.memory_gib is not None
    longest = device_memory(config, shape, sku.memory_gib, draft).num_blocks * config.block_size
    shorter = f", or max_model_len {longest}" if longest >= 16 else ""
    return f"{found}{shorter}"


def _within_a_node(
    config: EngineConfig, shape: ModelShape, sku: Sku, draft: ModelShape | None, from_split: int = 1
) -> str:
    """The narrowest split that one machine has and that fits, else the first smaller number format that does."""

    def fitting(tried: EngineConfig, start: int) -> int | None:
        if sku.memory_gib is None:
            return None
        for split in range(start, sku.devices_per_node + 1):
            wider = tried.model_copy(update={"tensor_parallel_size": split})
            if shape.num_attention_heads % split == 0 and device_memory(wider, shape, sku.memory_gib, draft).fits:
                return split
        return None

    if split := fitting(config, from_split):
        return f"tensor_parallel_size {split} would fit"
    for weights in _SMALLER_WEIGHTS:
        parts = config.quantization.model_copy(update={"weights": weights, "activations": "bf16"})
        if split := fitting(config.model_copy(update={"quantization": parts}), 1):
            return (
                f"No parallel split of one machine ({sku.devices_per_node} {sku.name}) would fit; "
                f"quantization.weights {weights} with tensor_parallel_size {split} would"
            )
    return (
        f"No parallel split of one machine ({sku.devices_per_node} {sku.name}) would fit, not even with "
        f"{_SMALLER_WEIGHTS[-1]} weights, and no split over several is simulated: take a SKU with more memory"
    )
