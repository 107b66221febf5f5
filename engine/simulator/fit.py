"""Whether a config fits a SKU, and the nearest that would: `Backend.check` for hardware that is not here.

Does not know step times.
"""

from __future__ import annotations

from engine.backend import FailureKind, Refusal
from engine.config import EngineConfig
from engine.memory import device_memory, plain_bytes
from engine.model_shape import ModelShape
from search_spaces.skus import Sku

_WIDEST = 64  # devices tried when the nearest parallel split is looked for


def sku_refusals(config: EngineConfig, shape: ModelShape, sku: Sku, draft: ModelShape | None = None) -> list[Refusal]:
    """Everything that speaks against running a config on `tensor_parallel_size` devices of a SKU."""
    split = config.tensor_parallel_size
    if shape.num_attention_heads % split:
        reason = f"tensor_parallel_size {split} does not divide the model's {shape.num_attention_heads} attention heads"
        fitting = [n for n in range(1, split) if shape.num_attention_heads % n == 0]
        return [Refusal(reason=f"{reason}. Use {fitting[-1]}", kind=FailureKind.UNSUPPORTED)]
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
    return [
        Refusal(reason=f"{reason}. {_nearest(config, shape, sku.memory_gib, draft)}", kind=FailureKind.OUT_OF_MEMORY)
    ]


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


def _nearest(config: EngineConfig, shape: ModelShape, memory_gib: float, draft: ModelShape | None) -> str:
    """The narrowest wider split that fits, and the longest sequence where only the KV cache is too small."""
    for split in range(config.tensor_parallel_size + 1, _WIDEST + 1):
        wider = config.model_copy(update={"tensor_parallel_size": split})
        if shape.num_attention_heads % split == 0 and device_memory(wider, shape, memory_gib, draft).fits:
            found = f"tensor_parallel_size {split} would fit"
            break
    else:
        found = "No parallel split of this SKU would fit"
    longest = device_memory(config, shape, memory_gib, draft).num_blocks * config.block_size
    shorter = f", or max_model_len {longest}" if longest >= 16 else ""
    return f"{found}{shorter}"
