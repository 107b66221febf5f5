"""Sums over ranks: what turns the parts of a layer into the layer.

Every rank gets the same bits, so that ranks cannot drift apart. Does not know models.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from engine.bundled.parallel.shard import Shard
from engine.bundled.transformer import Decoder

_TIMEOUT = timedelta(seconds=60)  # a rank that stands still this long is given up
_BLOCK = 128  # numbers that share a scale on the wire


class Communicator:
    """The process group of all ranks; one a process at a time.

    Args:
        rendezvous: an init_method of torch.distributed, e.g. `file:///path/of/a/new/file`.
        number_format: `int8` sends blocks of 128 codes with a float32 scale instead of whole numbers.
    """

    def __init__(
        self, shard: Shard, device: torch.device, *, rendezvous: str, number_format: Literal["bf16", "int8"]
    ) -> None:
        self._size = shard.size
        self._number_format = number_format
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=rendezvous,
            rank=shard.rank,
            world_size=shard.size,
            timeout=_TIMEOUT,
        )

    def sum(self, x: Tensor) -> Tensor:
        """Elementwise over ranks, of x [N, H] in its own type.

        Raises:
            RuntimeError: a rank has gone, or stood still for a minute.
        """
        if self._number_format == "int8":
            return self._sum_of_codes(x)
        dist.all_reduce(x)
        return x

    def _sum_of_codes(self, x: Tensor) -> Tensor:
        """Everybody's codes and scales, summed in rank order in float32: |error| <= sum of half the scales."""
        codes, scales = encode(x)
        all_codes = [torch.empty_like(codes) for _ in range(self._size)]
        all_scales = [torch.empty_like(scales) for _ in range(self._size)]
        dist.all_gather(all_codes, codes)
        dist.all_gather(all_scales, scales)
        total = sum(decode(*pair, width=x.shape[-1]) for pair in zip(all_codes, all_scales, strict=True))
        assert isinstance(total, Tensor), "there is at least one rank"
        return total.to(x.dtype)

    def close(self) -> None:
        dist.destroy_process_group()


def encode(x: Tensor) -> tuple[Tensor, Tensor]:
    """Int8 codes [N, B, 128] and float32 scales [N, B, 1] of x [N, H], the last block padded with zeros."""
    padded = nn.functional.pad(x.float(), (0, -x.shape[-1] % _BLOCK)).reshape(len(x), -1, _BLOCK)
    scales = padded.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
    return (padded / scales).round_().to(torch.int8), scales


def decode(codes: Tensor, scales: Tensor, *, width: int) -> Tensor:
    """The inverse of `encode`, float32 [N, width]."""
    return (codes.float() * scales).flatten(-2)[..., :width]


class RowParallel(nn.Module):
    """A linear layer of which each rank holds some columns: the ranks' outputs add up to the layer's."""

    def __init__(self, linear: nn.Module, communicator: Communicator) -> None:
        super().__init__()
        self.linear = linear
        self._communicator = communicator

    def forward(self, x: Tensor) -> Tensor:
        return self._communicator.sum(self.linear(x))


def join_rows(decoder: Decoder, communicator: Communicator) -> None:
    """Sum where a layer's columns are spread over ranks, in place; after quantization."""
    for layer in decoder.layers:
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            layer.set_submodule(name, RowParallel(layer.get_submodule(name), communicator))
