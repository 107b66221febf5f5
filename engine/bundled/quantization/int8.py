"""Int8 weights: one symmetric scale per output channel; activations as they are, or int8 per token too.

Does not know where in a model it stands.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.bundled.quantization.rows import int8_rows

_MAX_PACKED_ROWS = 16  # more rows: dequantizing once and one dense product is faster
_CUDA_ROWS, _CUDA_MULTIPLE = 32, 8  # of `torch._int_mm`'s operands on CUDA


class Int8Linear(nn.Module):
    """`nn.Linear` with weight = int8 * scale.

    Args:
        codes: int8 [out, in].
        scale: [out], in the type the layer computes in.
    """

    def __init__(self, codes: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(codes.contiguous(), requires_grad=False)
        self.scale = nn.Parameter(scale.contiguous(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.packs = codes.device.type == "cpu" and scale.dtype == torch.bfloat16

    @classmethod
    def quantize(cls, linear: nn.Linear) -> Int8Linear:
        """Nearest codes in -127..127: |weight - dequantized| <= scale / 2."""
        weight = linear.weight.float()  # [out, in]
        scale = (weight.abs().amax(1).clamp_min(1e-12) / 127).to(linear.weight.dtype)
        codes = (weight / scale.float().unsqueeze(1)).round_().clamp_(-127, 127).to(torch.int8)
        return cls(codes, scale, linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.packs and x.shape[0] <= _MAX_PACKED_ROWS:
            out: Tensor = torch.ops.aten._weight_int8pack_mm(x, self.weight, self.scale)
            return out if self.bias is None else out.add_(self.bias)
        return F.linear(x, self.dequantized(), self.bias)

    def dequantized(self) -> Tensor:
        """The weight as numbers, [out, in]."""
        return self.weight.to(self.scale.dtype).mul_(self.scale.unsqueeze(1))


class Int8DynamicLinear(Int8Linear):
    """Rounds each input row to int8 with a scale of its own; products are sums of integers, hence exact."""

    def forward(self, x: Tensor) -> Tensor:
        rows = int8_rows(x)
        out = int8_product(rows.codes, self.weight).float().mul_(self.scale.float()).mul_(rows.scales)
        return (out if self.bias is None else out.add_(self.bias.float())).to(x.dtype)


def int8_product(a: Tensor, b: Tensor) -> Tensor:
    """a [N, in] b^T [in, out] of int8 numbers as int32."""
    if a.device.type != "cuda":
        return torch._int_mm(a, b.t())
    return padded_int8_product(a, b)


def padded_int8_product(a: Tensor, b: Tensor) -> Tensor:
    """The same with operands padded by zeros to the sizes CUDA's kernel takes."""
    num_rows, depth = a.shape
    deeper = -depth % _CUDA_MULTIPLE
    a = F.pad(a, (0, deeper, 0, -num_rows % _CUDA_ROWS))
    padded = F.pad(b, (0, deeper, 0, -len(b) % _CUDA_MULTIPLE))
    return torch._int_mm(a, padded.t())[:num_rows, : len(b)]
