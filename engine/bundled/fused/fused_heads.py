"""`FusedHeads`: Medusa heads run by the compiled library. It does not know drafts."""

from __future__ import annotations

import ctypes

import numpy as np
import torch
from torch import Tensor

from engine.bundled.fused.library import load_library
from engine.bundled.head_loader import Best, MedusaHeads


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

    def best(self, hidden: Tensor, num_heads: int, num_ranks: int) -> Best:
        """As `MedusaHeads.best`."""
        rows = hidden.contiguous()
        token_ids = np.empty((num_heads, len(rows), num_ranks), np.int64)
        probabilities = np.empty(token_ids.shape, np.float32)
        self._library.fused_best(
            self._heads, num_heads, len(rows), ctypes.c_void_p(rows.data_ptr()), num_ranks,
            ctypes.c_void_p(token_ids.ctypes.data), ctypes.c_void_p(probabilities.ctypes.data),
        )  # fmt: skip
        return Best(token_ids.tolist(), probabilities.tolist())
