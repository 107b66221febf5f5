"""`FusedModel`: a loaded, perhaps quantized decoder behind `PagedModel`'s interface, run by the compiled library.

Does not know whether it is the target or a draft. A token's numbers do not depend on the rest of its batch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence as Seq
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from engine.bundled.batch import Moves, Paths, Span, pack
from engine.bundled.fused.library import UnavailableError, load_library
from engine.bundled.loader import LoadedModel
from engine.bundled.lora.low_rank import LoraLinear
from engine.bundled.model_config import ModelConfig
from engine.bundled.paged_model import Forward
from engine.bundled.quantization.fp8 import Fp8DynamicLinear, Fp8Linear
from engine.bundled.quantization.int4 import Int4Linear
from engine.bundled.quantization.int8 import Int8DynamicLinear, Int8Linear
from engine.bundled.transformer import Decoder, DecoderLayer, rotary_frequencies
from engine.config import KvCacheFormat

_QKV, _O, _GATE_UP, _DOWN, _HEAD = range(5)
_DENSE, _INT8, _INT4, _FP8, _INT8_INT8, _FP8_FP8 = range(6)
_KIND_OF = {Int8Linear: _INT8, Int8DynamicLinear: _INT8_INT8, Fp8Linear: _FP8, Fp8DynamicLinear: _FP8_FP8}
_KV_FORMATS: dict[KvCacheFormat, int] = {"bf16": 0, "int8": 1, "fp8": 2}


class _Shape(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int) for name in ("num_layers", "hidden", "num_heads", "num_kv_heads", "head_dim")),
        *((name, ctypes.c_int) for name in ("intermediate", "vocab", "num_blocks", "block_size", "num_threads")),
        ("eps", ctypes.c_float),
        ("qk_norm", ctypes.c_int),
        ("kv_format", ctypes.c_int),
    )


class _Batch(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int) for name in ("num_tokens", "num_sequences", "table_width")),
        *((name, ctypes.c_void_p) for name in ("ids", "positions", "slots", "starts", "lengths", "tables", "inputs")),
        *((name, ctypes.c_void_p) for name in ("paths", "path_lengths", "path_starts")),
        ("path_width", ctypes.c_int64),
        ("adapters", ctypes.c_void_p),
    )


class FusedModel:
    """One network whose keys and values live in blocks that the block manager hands out.

    The library packs its own copy of the projections; embedding and rotary tables are read where they lie.

    Raises:
        UnavailableError: it cannot run here; nothing was allocated.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        num_blocks: int,
        block_size: int,
        max_positions: int,
        kv_format: KvCacheFormat = "bf16",
    ) -> None:
        self._library = load_library(model.dtype)
        if model.config.head_dim % 2:
            raise UnavailableError(f"head_dim {model.config.head_dim} is odd")
        self.device = torch.device("cpu")
        self.dtype, self.block_size = model.dtype, block_size
        self._hidden_size, self._vocab_size = model.config.hidden_size, model.config.vocab_size
        shape = _shape(model.config, num_blocks, block_size, kv_format)
        self._decoder = ctypes.c_void_p(
            self._library.fused_new(ctypes.byref(shape), int(model.dtype == torch.bfloat16))
        )
        self._read_in_place = _ends(model, max_positions)
        self._fill(model.decoder)

    def __del__(self) -> None:
        if getattr(self, "_decoder", None):
            self._library.fused_free(self._decoder)

    def forward(self, spans: Seq[Span], inputs: Tensor | None = None) -> Forward:
        """Write the spans' keys and values and return their hidden states.

        Args:
            inputs: [N, hidden] in place of the packed tokens' embeddings.
        """
        batch = pack(spans, self.block_size, self.device)
        inputs = None if inputs is None else inputs.contiguous()
        hidden = torch.empty(len(batch.token_ids), self._hidden_size, dtype=self.dtype)
        columns = (batch.token_ids, batch.positions, batch.slots)
        rows = (batch.starts, batch.lengths, batch.block_tables)
        packed = _Batch(
            len(hidden),
            len(spans),
            batch.block_tables.shape[1],
            *(column.data_ptr() for column in columns),
            *(row.ctypes.data for row in rows),
            None if inputs is None else inputs.data_ptr(),
            *_path_fields(batch.paths),
            None if batch.adapters is None else batch.adapters.ctypes.data,
        )
        self._library.fused_forward(self._decoder, ctypes.byref(packed), ctypes.c_void_p(hidden.data_ptr()))
        return Forward(batch, hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits [N, V]."""
        rows = hidden.contiguous()
        logits: Tensor = torch.empty(len(rows), self._vocab_size)
        self._library.fused_logits(self._decoder, *_pointers(rows), len(rows), *_pointers(logits))
        return logits

    def move(self, moves: Moves) -> None:
        """Copy keys and values within the cache."""
        sources, targets = (np.array(slots, np.int64) for slots in moves)
        pointers = (ctypes.c_void_p(slots.ctypes.data) for slots in (sources, targets))
        self._library.fused_move(self._decoder, *pointers, len(sources))

    def _fill(self, decoder: Decoder) -> None:
        for number, layer in enumerate(decoder.layers):
            assert isinstance(layer, DecoderLayer)
            attention, mlp = layer.self_attn, layer.mlp
            norms = (layer.input_layernorm, layer.post_attention_layernorm)
            qk = None if attention.qk_norm is None else attention.qk_norm.weight.float().contiguous()
            floats = [_norm(norm) for norm in norms]
            self._library.fused_set_norms(self._decoder, number, *_pointers(*floats, qk))
            self._set_linear(number, _QKV, attention.qkv_proj)
            self._set_linear(number, _O, attention.o_proj)
            self._set_linear(number, _GATE_UP, mlp.gate_up_proj)
            self._set_linear(number, _DOWN, mlp.down_proj)
        self._set_linear(0, _HEAD, decoder.lm_head)
        self._library.fused_set_ends(self._decoder, *_pointers(*self._read_in_place))

    def _set_linear(self, layer: int, which: int, module: nn.Module) -> None:
        if isinstance(module, LoraLinear):
            self._set_linear(layer, which, module.base)
            for number, part in ((number, part) for number, parts in module.parts.items() for part in parts):
                a, b = part.a.contiguous(), part.b.T.contiguous()
                self._library.fused_add_adapter(
                    self._decoder, layer, which, number, len(a), part.first, b.shape[1], *_pointers(a, b)
                )
            return
        weights = _weights(module)
        num_inputs = weights.weight.shape[1] * (2 if weights.kind == _INT4 else 1)
        weight, scale, zero, bias = _pointers(weights.weight, weights.scale, weights.zero, weights.bias)
        self._library.fused_set_linear(
            self._decoder, layer, which, weights.kind, len(weights.weight), num_inputs,
            weight, scale, zero, weights.group, bias,
        )  # fmt: skip


def _path_fields(paths: Paths | None) -> tuple[int | None, int | None, int | None, int]:
    if paths is None:
        return None, None, None, 0
    places, lengths, starts = (column.ctypes.data for column in paths)
    return places, lengths, starts, paths.places.shape[1]


class _Weights(NamedTuple):
    """A linear layer as `fused_set_linear` takes it."""

    kind: int
    weight: Tensor  # [out, in]; int4: [out, in / 2]
    bias: Tensor | None  # float32 [out]
    scale: Tensor | None = None  # float32: [out] for 8 bits, [in / group, out] for int4
    zero: Tensor | None = None  # like scale; None for symmetric groups
    group: int = 0


def _weights(module: nn.Module) -> _Weights:
    assert isinstance(module, nn.Linear | Int8Linear | Fp8Linear | Int4Linear), "every format has its packing here"
    bias = None if module.bias is None else module.bias.float().contiguous()
    if isinstance(module, Int8Linear | Fp8Linear):
        return _Weights(_KIND_OF[type(module)], module.weight.contiguous(), bias, module.scale.float().contiguous())
    if isinstance(module, Int4Linear):
        zeros = module.zeros()
        zero = None if zeros is None else zeros.t().contiguous()
        scale = module.scales.float().t().contiguous()
        return _Weights(_INT4, module.nibbles.contiguous(), bias, scale, zero, module.group_size)
    return _Weights(_DENSE, module.weight.contiguous(), bias)


def _shape(config: ModelConfig, num_blocks: int, block_size: int, kv_format: KvCacheFormat) -> _Shape:
    return _Shape(
        num_layers=config.num_layers,
        hidden=config.hidden_size,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        intermediate=config.intermediate_size,
        vocab=config.vocab_size,
        num_blocks=num_blocks,
        block_size=block_size,
        num_threads=torch.get_num_threads(),
        eps=config.rms_norm_eps,
        qk_norm=int(config.qk_norm),
        kv_format=_KV_FORMATS[kv_format],
    )


def _norm(module: nn.Module) -> Tensor | None:
    """Gains [H] in float32; None where a model has no norm in this place."""
    return None if isinstance(module, nn.Identity) else module.get_parameter("weight").float().contiguous()


def _ends(model: LoadedModel, max_positions: int) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Embedding [V, H], final norm [H], cosines and sines [P, D / 2] in float32."""
    frequencies = rotary_frequencies(model.config.rope, model.config.head_dim)
    angles = torch.from_numpy(np.arange(max_positions, dtype=np.float32)).outer(frequencies)
    embedding = model.decoder.embed_tokens.weight.contiguous()
    return embedding, _norm(model.decoder.norm), angles.cos(), angles.sin()


def _pointers(*tensors: Tensor | None) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]
