"""Int4 weights: one asymmetric scale and zero per group of inputs.

Does not know where in a model it stands.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.bundled.errors import UnsupportedError

_MAX_PACKED_ROWS = 16  # more rows: dequantizing once and one dense product is faster
_MIDDLE = 8  # PyTorch's kernels compute (q - 8) * scale + zero


class Int4Linear(nn.Module):
    """`nn.Linear` with weight = (q - 8) * scale + zero, q in 0..15; |weight - dequantized| <= scale / 2."""

    def __init__(self, linear: nn.Linear, group_size: int) -> None:
        super().__init__()
        weight = linear.weight.float()  # [out, in]
        self.out_features, self.in_features = weight.shape
        if self.in_features % group_size:
            raise UnsupportedError(
                f"int4 groups of {group_size} do not divide a layer of {self.in_features} inputs. Use smaller groups"
            )
        self.group_size = group_size
        self.dtype = linear.weight.dtype
        groups = weight.view(self.out_features, -1, group_size)  # [out, in / g, g]
        low, high = groups.aminmax(dim=-1)
        scale = ((high - low) / 15).to(self.dtype)  # 0 where all weights of a group are one number
        zero = (low + _MIDDLE * scale.float()).to(self.dtype)
        offset = groups - zero.float().unsqueeze(-1)
        quantized = (
            (offset / scale.float().clamp_min(1e-12).unsqueeze(-1)).round_().add_(_MIDDLE).clamp_(0, 15).to(torch.uint8)
        )
        flat = quantized.view(self.out_features, self.in_features)
        self.bias = linear.bias
        self.scales_and_zeros = nn.Parameter(  # [in / g, out, 2], the kernel's layout
            torch.stack((scale, zero), -1).transpose(0, 1).contiguous(), requires_grad=False
        )
        self.nibbles = nn.Parameter(flat[:, ::2] | flat[:, 1::2] << 4, requires_grad=False)  # [out, in / 2]
        packs = linear.weight.device.type == "cpu" and self.dtype == torch.bfloat16 and self.out_features % 16 == 0
        self.packed = self._pack(flat) if packs else None

    def _pack(self, flat: Tensor) -> Tensor:
        packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(flat.int(), 1)
        return packed

    def forward(self, x: Tensor) -> Tensor:
        if self.packed is not None and x.shape[0] <= _MAX_PACKED_ROWS:
            out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
                x, self.packed, self.group_size, self.scales_and_zeros
            )
            return out if self.bias is None else out.add_(self.bias)
        return F.linear(x, self.dequantized(), self.bias)

    def dequantized(self) -> Tensor:
        """The weight as numbers, [out, in]."""
        quantized = torch.stack((self.nibbles & 15, self.nibbles >> 4), -1).view(self.out_features, -1, self.group_size)
        scale, zero = (part.t().unsqueeze(-1) for part in self.scales_and_zeros.unbind(-1))
        weight = quantized.to(self.dtype).sub_(_MIDDLE).mul_(scale).add_(zero)
        return weight.view(self.out_features, self.in_features)
