"""`KVCache`: the paged keys and values of one model, and how many blocks fit in memory.

Does not know who holds which block.
"""

from __future__ import annotations

import psutil
import torch
from torch import Tensor

from engine.bundled.errors import CapacityError
from engine.bundled.kv_formats import KV_FORMATS, Stored, head_bytes
from engine.bundled.model_config import ModelConfig
from engine.config import EngineConfig, KvCacheFormat

_CPU_SHARE, _CPU_CEILING_BYTES = 0.25, 1 << 30
_CUDA_SHARE = 0.9


class KVCache:
    """One tensor of codes per layer, [2 * Hkv, num_blocks, block_size * D], keys first, and scales without the D.

    Heads lead so that a gather of whole blocks is already the layout batched products want.
    Zeroed: padding reads blocks nobody wrote, and a NaN there would survive the mask.
    """

    def __init__(
        self,
        model: ModelConfig,
        num_blocks: int,
        block_size: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
        kv_format: KvCacheFormat = "bf16",
    ) -> None:
        self.num_blocks, self.block_size, self.dtype, self.device = num_blocks, block_size, dtype, device
        self.num_kv_heads, self.head_dim = model.num_kv_heads, model.head_dim
        self.kv_format = kv_format
        self._format = KV_FORMATS[kv_format]
        rows = (2 * model.num_kv_heads, num_blocks, block_size)
        codes = self._format.code_dtype(dtype)
        self._codes = [torch.zeros(*rows, model.head_dim, dtype=codes, device=device) for _ in range(model.num_layers)]
        self._scales = [
            torch.zeros(rows, device=device) for _ in range(model.num_layers if self._format.has_scales else 0)
        ]
        self._room: dict[torch.dtype, Tensor] = {}

    def write(self, layer: int, slots: Tensor, key_value: Tensor) -> None:
        """Store key_value [N, 2 * Hkv, D] at slots [N]."""
        stored = self._format.encode(key_value)
        self._codes[layer].flatten(1, 2).index_copy_(1, slots, stored.codes.transpose(0, 1))
        if stored.scales is not None:
            self._scales[layer].flatten(1, 2).index_copy_(1, slots, stored.scales.transpose(0, 1))

    def read(self, layer: int, blocks: Tensor) -> Tensor:
        """Keys and values [2 * Hkv, len(blocks), block_size, D] as stored; good until the next call."""
        codes = self._select(self._codes[layer].flatten(2), blocks)
        scales = self._select(self._scales[layer], blocks) if self._scales else None
        heads = codes.view(*codes.shape[:2], self.block_size, self.head_dim)
        return self._format.decode(Stored(heads, scales), self.dtype)

    def stored(self, layer: int) -> Stored:
        """All blocks as they are: codes [2 * Hkv, num_blocks, block_size, D], keys first, and scales without the D."""
        return Stored(self._codes[layer], self._scales[layer] if self._scales else None)

    def move(self, sources: Tensor, targets: Tensor) -> None:
        """Copy what lies at slots `sources` [N] to `targets` [N], in every layer; both may share slots."""
        for rows in (*self._codes, *self._scales):
            slots = rows.flatten(1, 2)
            slots.index_copy_(1, targets, slots.index_select(1, sources))

    def _select(self, rows: Tensor, blocks: Tensor) -> Tensor:
        """Of rows [R, num_blocks, X] the blocks, in memory that is kept."""
        shape = (rows.shape[0], blocks.shape[0], rows.shape[2])
        size = shape[0] * shape[1] * shape[2]
        if rows.dtype not in self._room or self._room[rows.dtype].numel() < size:
            self._room[rows.dtype] = rows.new_empty(size)
        return torch.index_select(rows, 1, blocks, out=self._room[rows.dtype][:size].view(shape))


def block_bytes(model: ModelConfig, dtype: torch.dtype, block_size: int, kv_format: KvCacheFormat = "bf16") -> int:
    """Bytes one block takes over all layers, scales included."""
    num_heads = 2 * model.num_layers * model.num_kv_heads
    return block_size * num_heads * head_bytes(kv_format, model.head_dim, dtype)


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
