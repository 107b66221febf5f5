"""`FusedHeads`: Medusa heads run by the compiled library. It does not know drafts."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from engine.bundled.fused.library import load_library
from engine.bundled.head_loader import MedusaHeads


class _Shape(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int) for name in ("num_heads", "num_layers", "hidden", "vocab", "num_threads"))


class FusedHeads:
    """Packs its own copy of the heads' matrices.

    Raises:
        UnavailableError: it cannot run here; nothing was allocated.
    """

    def __init__(self, heads: MedusaHeads) -> None:
        dtype = heads.heads.dtype
        self._library = load_library(dtype)
        self._vocab_size = heads.vocab_size
        shape = _Shape(
            num_heads=heads.num_heads,
            num_layers=len(heads.layers),
            hidden=heads.heads.shape[1],
            vocab=heads.vocab_size,
            num_threads=torch.get_num_threads(),
        )
        is_bf16 = int(dtype == torch.bfloat16)
        self._heads = ctypes.c_void_p(self._library.fused_new_heads(ctypes.byref(shape), is_bf16))
        for layer, matrices in enumerate((*heads.layers, heads.heads)):  # [K, in, out] each, the output last
            for head, matrix in enumerate(matrices):
                weight = matrix.t().contiguous()
                self._library.fused_set_head(self._heads, head, layer, ctypes.c_void_p(weight.data_ptr()))

    def __del__(self) -> None:
        if getattr(self, "_heads", None):
            self._library.fused_free_heads(self._heads)

    def __call__(self, hidden: Tensor, num_heads: int) -> Tensor:
        """Float32 logits [num_heads, B, V] of target hidden states [B, H]."""
        rows = hidden.contiguous()
        logits = torch.empty(num_heads, len(rows), self._vocab_size)
        pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (rows, logits))
        self._library.fused_heads(self._heads, num_heads, len(rows), *pointers)
        return logits
