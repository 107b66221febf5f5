"""How keys and values are stored in the cache; `KV_FORMATS` lists the members.

Does not know pages. Attention reads what was stored, also of the step's own tokens, so that a prompt computed in pieces
or found in the prefix cache gives the numbers of one computed whole.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from engine.bundled.quantization.rows import FP8, int8_rows, to_fp8
from engine.config import KvCacheFormat

_SCALE_BYTES = 4


class Stored(NamedTuple):
    """Codes [..., D]; float32 scales [...] where the format has one per token and head."""

    codes: Tensor
    scales: Tensor | None = None


class KVFormat(Protocol):
    """One way to store heads [..., D]."""

    has_scales: bool

    def code_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Of the codes, when the model computes in `dtype`."""
        ...

    def encode(self, heads: Tensor) -> Stored: ...

    def decode(self, stored: Stored, dtype: torch.dtype) -> Tensor: ...


class AsComputed:
    """In the type the model computes in."""

    has_scales = False

    def code_dtype(self, dtype: torch.dtype) -> torch.dtype:
        return dtype

    def encode(self, heads: Tensor) -> Stored:
        return Stored(heads)

    def decode(self, stored: Stored, dtype: torch.dtype) -> Tensor:  # noqa: ARG002
        return stored.codes


class Int8:
    """Symmetric, a scale per token and head: |head - decoded| <= scale / 2."""

    has_scales = True

    def code_dtype(self, dtype: torch.dtype) -> torch.dtype:  # noqa: ARG002
        return torch.int8

    def encode(self, heads: Tensor) -> Stored:
        rows = int8_rows(heads)
        return Stored(rows.codes, rows.scales.squeeze(-1))

    def decode(self, stored: Stored, dtype: torch.dtype) -> Tensor:
        assert stored.scales is not None, "int8 is stored with scales"
        return (stored.codes * stored.scales.unsqueeze(-1)).to(dtype)


class Fp8:
    """E4m3 without a scale: relative error at most 2^-4 from 2^-6 to 448, which larger numbers become."""

    has_scales = False

    def code_dtype(self, dtype: torch.dtype) -> torch.dtype:  # noqa: ARG002
        return torch.uint8  # the bits: not every operation takes fp8

    def encode(self, heads: Tensor) -> Stored:
        return Stored(to_fp8(heads.float()).view(torch.uint8))

    def decode(self, stored: Stored, dtype: torch.dtype) -> Tensor:
        return stored.codes.view(FP8).to(dtype)


KV_FORMATS: dict[KvCacheFormat, KVFormat] = {"bf16": AsComputed(), "int8": Int8(), "fp8": Fp8()}


def head_bytes(kv_format: KvCacheFormat, head_dim: int, dtype: torch.dtype) -> int:
    """Bytes of one token's key (or value) of one head."""
    form = KV_FORMATS[kv_format]
    return head_dim * form.code_dtype(dtype).itemsize + _SCALE_BYTES * form.has_scales
