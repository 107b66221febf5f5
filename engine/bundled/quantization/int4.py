"""Int4 weights: a scale per group of inputs, and an integer zero point where groups are asymmetric.

Does not know where in a model it stands. Scales and zero points follow from minima and maxima as in compressed-tensors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.bundled.errors import UnsupportedError

_MAX_PACKED_ROWS = 16  # more rows: dequantizing once and one dense product is faster
_MIDDLE = 8  # codes are 0..15, and this is zero where groups are symmetric
_LEAST = 1e-12  # instead of the scale of a group of zeros


class Int4Linear(nn.Module):
    """`nn.Linear` with weight = (code - zero point) * scale, codes and zero points in 0..15.

    Args:
        codes: uint8 [out, in].
        scales: [out, in / group], in the type the layer computes in.
        zero_points: uint8 [out, in / group]; None: 8 everywhere.
    """

    def __init__(self, codes: Tensor, scales: Tensor, zero_points: Tensor | None, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = codes.shape
        self.group_size = self.in_features // scales.shape[1]
        self.dtype = scales.dtype
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.nibbles = nn.Parameter(codes[:, ::2] | codes[:, 1::2] << 4, requires_grad=False)  # [out, in / 2]
        self.scales = nn.Parameter(scales.contiguous(), requires_grad=False)
        self.zero_points = None if zero_points is None else nn.Parameter(zero_points.contiguous(), requires_grad=False)
        packs = codes.device.type == "cpu" and self.dtype == torch.bfloat16 and self.out_features % 16 == 0
        self.register_buffer("packed", self._pack(codes) if packs else None, persistent=False)

    @classmethod
    def quantize(cls, linear: nn.Linear, *, group_size: int, symmetric: bool) -> Int4Linear:
        """Nearest codes: |weight - dequantized| <= scale / 2, or scale where a zero point was rounded.

        Raises:
            UnsupportedError: groups do not divide the inputs.
        """
        weight = linear.weight.float()  # [out, in]
        if weight.shape[1] % group_size:
            raise UnsupportedError(
                f"int4 groups of {group_size} do not divide a layer of {weight.shape[1]} inputs. Use smaller groups"
            )
        groups = weight.view(len(weight), -1, group_size)  # [out, in / g, g]
        low, high = (bound.unsqueeze(-1) for bound in groups.aminmax(dim=-1))
        low, high = low.clamp_max(0), high.clamp_min(0)
        widest = 2 * torch.maximum(high, -low) if symmetric else high - low
        scales = (widest.clamp_min(_LEAST) / 15).to(linear.weight.dtype)
        offsets = torch.full_like(low, _MIDDLE) if symmetric else (-low / scales.float()).round_().clamp_(0, 15)
        codes = (groups / scales.float()).round_().add_(offsets).clamp_(0, 15).to(torch.uint8).flatten(1)
        zero_points = None if symmetric else offsets.to(torch.uint8).squeeze(-1)
        return cls(codes, scales.squeeze(-1), zero_points, linear.bias)

    def zeros(self) -> Tensor | None:
        """Float32 [out, in / group]: what code 8 stands for; None where that is zero."""
        if self.zero_points is None:
            return None
        return (_MIDDLE - self.zero_points.float()) * self.scales.float()

    def forward(self, x: Tensor) -> Tensor:
        if self.packed is not None and x.shape[0] <= _MAX_PACKED_ROWS:
            out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x, self.packed, self.group_size, self._for_kernel)
            return out if self.bias is None else out.add_(self.bias)
        return F.linear(x, self.dequantized(), self.bias)

    def dequantized(self) -> Tensor:
        """The weight as numbers, [out, in]."""
        codes = torch.stack((self.nibbles & 15, self.nibbles >> 4), -1).view(self.out_features, -1, self.group_size)
        zero_points = _MIDDLE if self.zero_points is None else self.zero_points.to(self.dtype).unsqueeze(-1)
        return codes.to(self.dtype).sub_(zero_points).mul_(self.scales.unsqueeze(-1)).flatten(1)

    def _pack(self, codes: Tensor) -> Tensor:
        """The kernel's own order of the codes, and its scales and zeros beside: (code - 8) * scale + zero."""
        zeros = self.zeros()
        pair = (self.scales, torch.zeros_like(self.scales) if zeros is None else zeros.to(self.dtype))
        kernel = torch.stack(pair, -1).transpose(0, 1).contiguous()  # [in / g, out, 2]
        self.register_buffer("_for_kernel", kernel, persistent=False)
        packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.int(), 1)
        return packed
