"""Int8 weights: one symmetric scale per output channel.

Does not know where in a model it stands.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MAX_PACKED_ROWS = 16  # more rows: dequantizing once and one dense product is faster


class Int8Linear(nn.Module):
    """`nn.Linear` with weight = int8 * scale; |weight - dequantized| <= scale / 2."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.float()  # [out, in]
        scale = weight.abs().amax(1).clamp_min(1e-12) / 127
        self.weight = nn.Parameter(
            (weight / scale.unsqueeze(1)).round_().clamp_(-127, 127).to(torch.int8), requires_grad=False
        )
        self.scale = nn.Parameter(scale.to(linear.weight.dtype), requires_grad=False)
        self.bias = linear.bias
        self.packs = linear.weight.device.type == "cpu" and linear.weight.dtype == torch.bfloat16

    def forward(self, x: Tensor) -> Tensor:
        if self.packs and x.shape[0] <= _MAX_PACKED_ROWS:
            out: Tensor = torch.ops.aten._weight_int8pack_mm(x, self.weight, self.scale)
            return out if self.bias is None else out.add_(self.bias)
        return F.linear(x, self.dequantized(), self.bias)

    def dequantized(self) -> Tensor:
        """The weight as numbers, [out, in]."""
        return self.weight.to(self.scale.dtype).mul_(self.scale.unsqueeze(1))
