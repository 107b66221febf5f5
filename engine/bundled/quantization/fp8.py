"""Fp8 weights (e4m3): one scale per output channel; activations as they are, or fp8 per token too.

Does not know where in a model it stands. Rounding is fp8's everywhere; speed is only where the GPU multiplies fp8
(compute capability 9.0): elsewhere the numbers are widened first.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.bundled.quantization.rows import FP8_LARGEST, Rows, fp8_rows, to_fp8

_NATIVE_CAPABILITY, _NATIVE_MULTIPLE = (9, 0), 16  # that `torch._scaled_mm` takes scales per row from; of sizes


class Fp8Linear(nn.Module):
    """`nn.Linear` with weight = e4m3 * scale.

    Args:
        codes: float8_e4m3fn [out, in].
        scale: [out], in the type the layer computes in.
    """

    def __init__(self, codes: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(codes.contiguous(), requires_grad=False)
        self.scale = nn.Parameter(scale.contiguous(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @classmethod
    def quantize(cls, linear: nn.Linear) -> Fp8Linear:
        """Nearest codes: |weight - dequantized| <= 2^-4 |weight|, or 2^-10 scale where that is more."""
        weight = linear.weight.float()  # [out, in]
        scale = (weight.abs().amax(1).clamp_min(1e-12) / FP8_LARGEST).to(linear.weight.dtype)
        return cls(to_fp8(weight / scale.float().unsqueeze(1)), scale, linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.dequantized(), self.bias)

    def dequantized(self) -> Tensor:
        """The weight as numbers, [out, in]."""
        return self.weight.to(self.scale.dtype).mul_(self.scale.unsqueeze(1))


class Fp8DynamicLinear(Fp8Linear):
    """Rounds each input row to fp8 with a scale of its own."""

    def forward(self, x: Tensor) -> Tensor:
        rows = fp8_rows(x)
        if self._is_native(x):
            out = self.native_product(rows)
        else:
            out = F.linear(rows.codes.to(x.dtype), self.weight.to(x.dtype)).float() * self.scale.float() * rows.scales
        return (out if self.bias is None else out.add_(self.bias.float())).to(x.dtype)

    def native_product(self, rows: Rows) -> Tensor:
        """Float32 [N, out], by a kernel that multiplies fp8."""
        scales = (rows.scales, self.scale.float().unsqueeze(0))
        product = torch._scaled_mm(rows.codes, self.weight.t(), *scales, out_dtype=torch.bfloat16)
        return product.float()

    def _is_native(self, x: Tensor) -> bool:
        if x.device.type != "cuda" or any(size % _NATIVE_MULTIPLE for size in self.weight.shape):
            return False
        return torch.cuda.get_device_capability(x.device) >= _NATIVE_CAPABILITY
