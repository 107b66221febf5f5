"""`KVCache`: the paged keys and values of one model, and how many blocks fit in memory.

Does not know who holds which block.
"""

from __future__ import annotations

import psutil
import torch
from torch import Tensor

from engine.bundled.errors import CapacityError
from engine.bundled.model_config import ModelConfig
from engine.config import EngineConfig

_CPU_SHARE, _CPU_CEILING_BYTES = 0.25, 1 << 30
_CUDA_SHARE = 0.9


class KVCache:
    """One tensor per layer, [2 * Hkv, num_blocks, block_size * D], keys first.

    Heads lead so that a gather of whole blocks is already the layout batched products want.
    Zeroed: padding reads blocks nobody wrote, and a NaN there would survive the mask.
    """

    def __init__(
        self, model: ModelConfig, num_blocks: int, block_size: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.block_size = block_size
        self.num_kv_heads, self.head_dim = model.num_kv_heads, model.head_dim
        shape = (2 * model.num_kv_heads, num_blocks, block_size * model.head_dim)
        self.blocks: list[Tensor] = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(model.num_layers)]
        self.slots: list[Tensor] = [  # the same memory by token: [2 * Hkv, num_blocks * block_size, D]
            layer.view(2 * model.num_kv_heads, num_blocks * block_size, model.head_dim) for layer in self.blocks
        ]


def block_bytes(model: ModelConfig, dtype: torch.dtype, block_size: int) -> int:
    """Bytes one block takes over all layers."""
    return block_size * model.kv_values_per_token * dtype.itemsize


def choose_num_blocks(config: EngineConfig, *, bytes_per_block: int, max_model_len: int, device: torch.device) -> int:
    """Blocks the memory allows; by default never more than 64 (or max_num_seqs) sequences at full length.

    Raises:
        CapacityError: not even one sequence of `max_model_len` fits.
    """
    per_sequence = -(-max_model_len // config.block_size)
    available = config.kv_cache_memory_bytes or _default_memory_bytes(device)
    num_blocks = available // bytes_per_block
    if num_blocks < per_sequence:
        raise CapacityError(
            f"the KV cache has {available / 2**20:.1f} MiB, but one sequence of max_model_len {max_model_len} needs "
            f"{per_sequence * bytes_per_block / 2**20:.1f} MiB. Lower max_model_len or raise kv_cache_memory_bytes"
        )
    if config.kv_cache_memory_bytes is not None:
        return num_blocks
    return min(num_blocks, max(64, config.max_num_seqs) * per_sequence)


def _default_memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return max(0, int(total * _CUDA_SHARE) - (total - free))
    return min(int(psutil.virtual_memory().available * _CPU_SHARE), _CPU_CEILING_BYTES)
