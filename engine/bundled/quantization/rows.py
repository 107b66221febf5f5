"""Rows of numbers in eight bits with one scale each: value = code * scale. Does not know what the rows are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

FP8 = torch.float8_e4m3fn
FP8_LARGEST = 448.0
_LEAST = 1e-12  # instead of the largest magnitude of a row of zeros


class Rows(NamedTuple):
    """Codes [..., D] and float32 scales [..., 1]."""

    codes: Tensor
    scales: Tensor


def int8_rows(x: Tensor) -> Rows:
    """Symmetric int8, codes in -127..127: |x - code * scale| <= scale / 2."""
    x = x.float()
    scales = x.abs().amax(-1, keepdim=True).clamp_min_(_LEAST) / 127
    return Rows((x / scales).round_().to(torch.int8), scales)


def fp8_rows(x: Tensor) -> Rows:
    """E4m3, the largest magnitude of a row at 448."""
    x = x.float()
    scales = x.abs().amax(-1, keepdim=True).clamp_min_(_LEAST) / FP8_LARGEST
    return Rows(to_fp8(x / scales), scales)


def to_fp8(x: Tensor) -> Tensor:
    """Nearest e4m3 numbers; what is larger than 448 becomes 448."""
    return x.clamp(-FP8_LARGEST, FP8_LARGEST).to(FP8)
