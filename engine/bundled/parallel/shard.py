"""`Shard`: which part of a checkpoint's tensors one rank holds.

Attention by heads, the MLP by its hidden units: q, k, v, gate and up lose rows, o and down lose columns; embeddings,
norms and the output head are whole on every rank. Does not know processes or how parts are summed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.bundled.errors import UnsupportedError
from engine.bundled.model_config import ModelConfig
from engine.bundled.parallel.split import split_obstacle

_BY_ROWS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
_BY_COLUMNS = ("o_proj", "down_proj")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Part `rank` of `size`."""

    rank: int
    size: int

    def local(self, config: ModelConfig) -> ModelConfig:
        """The shape of this rank's decoder.

        Raises:
            UnsupportedError: heads or hidden units do not divide, or the layers are stored quantized.
        """
        if self.size == 1:
            return config
        if obstacle := split_obstacle(config, self.size):
            raise UnsupportedError(obstacle)
        return replace(
            config,
            num_heads=config.num_heads // self.size,
            num_kv_heads=config.num_kv_heads // self.size,
            intermediate_size=config.intermediate_size // self.size,
        )

    def part(self, name: str, tensor: Tensor) -> Tensor:
        """This rank's part of a checkpoint tensor, e.g. `model.layers.0.self_attn.q_proj.weight` [out, in]."""
        if self.size == 1:
            return tensor
        module, _, parameter = name.rpartition(".")
        kind = module.rpartition(".")[2]
        if kind in _BY_ROWS:
            return tensor.chunk(self.size)[self.rank].contiguous()
        if kind in _BY_COLUMNS and parameter == "weight":
            return tensor.chunk(self.size, 1)[self.rank].contiguous()
        if kind in _BY_COLUMNS and self.rank:
            return torch.zeros_like(tensor)  # a bias is added once
        return tensor

    def low_rank_part(self, module: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """What this rank adds for a LoRA adapter's A [rank, in] and B [out, rank] of the module: the rows of B where
        the module's rows are split; the columns of A where its columns are, so that the ranks' sums add up."""
        kind = module.rpartition(".")[2]
        if self.size > 1 and kind in _BY_ROWS:
            b = b.chunk(self.size)[self.rank]
        elif self.size > 1 and kind in _BY_COLUMNS:
            a = a.chunk(self.size, 1)[self.rank]
        return a.contiguous(), b.contiguous()


WHOLE = Shard(rank=0, size=1)
