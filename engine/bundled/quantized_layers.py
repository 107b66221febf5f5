"""Reads linear layers that a compressed-tensors checkpoint holds quantized. Does not know which those are.

Layouts: `weight` (int8 or e4m3) with `weight_scale`, or `weight_packed`: int32 numbers of 32 / bits codes each, lowest
bits first, with `weight_shape` and, where asymmetric, `weight_zero_point` packed alike down the rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from engine.bundled.errors import CheckpointError
from engine.bundled.layer_formats import LayerFormat
from engine.bundled.quantization.fp8 import Fp8DynamicLinear, Fp8Linear
from engine.bundled.quantization.int4 import Int4Linear
from engine.bundled.quantization.int8 import Int8DynamicLinear, Int8Linear
from engine.bundled.quantization.rows import FP8
from engine.bundled.tensor_reader import TensorReader

_LAYERS: dict[LayerFormat, type[Int8Linear | Fp8Linear]] = {
    LayerFormat("int8"): Int8Linear,
    LayerFormat("int8", "int8"): Int8DynamicLinear,
    LayerFormat("fp8"): Fp8Linear,
    LayerFormat("fp8", "fp8"): Fp8DynamicLinear,
}


class _Part(NamedTuple):
    codes: Tensor  # [out, in]: int8, e4m3, or uint8 of 0..15
    scales: Tensor  # [out, 1 or groups]
    zero_points: Tensor | None  # uint8 [out, groups]


def read_layer(
    reader: TensorReader, modules: list[str], form: LayerFormat, linear: nn.Module, dtype: torch.dtype
) -> nn.Module:
    """The modules' weights as one layer of the format that computes in `dtype`, with the shape and bias of `linear`.

    Raises:
        CheckpointError: tensors are missing or of another shape or type than the format's.
    """
    assert isinstance(linear, nn.Linear), "a layer is read once"
    parts = [_read(reader, module, form, linear.in_features) for module in modules]
    codes = torch.cat([part.codes for part in parts])
    _refuse_shape(reader, modules, codes, linear)
    scales = torch.cat([part.scales for part in parts]).to(dtype)
    if form in _LAYERS:
        return _LAYERS[form](codes, scales.squeeze(1), linear.bias)
    zero_points = [part.zero_points for part in parts if part.zero_points is not None]
    return Int4Linear(codes, scales, torch.cat(zero_points) if zero_points else None, linear.bias)


def unpack(packed: Tensor, num_bits: int, num_columns: int) -> Tensor:
    """Codes 0..2^bits - 1 as uint8 [rows, num_columns] of int32 [rows, columns / (32 / bits)]."""
    shifts = torch.arange(0, 32, num_bits, dtype=torch.int32)
    codes: Tensor = (packed.unsqueeze(-1) >> shifts) & (2**num_bits - 1)
    return codes.flatten(1)[:, :num_columns].to(torch.uint8)


def _read(reader: TensorReader, module: str, form: LayerFormat, num_inputs: int) -> _Part:
    if form.weights.startswith("int4"):
        return _read_int4(reader, module, form, num_inputs)
    if f"{module}.weight_packed" in reader.unused:
        reader.unused.discard(f"{module}.weight_shape")
        packed = reader.read(f"{module}.weight_packed")
        codes = (unpack(packed, 8, num_inputs).int() - 128).to(torch.int8)
    else:
        codes = reader.read(f"{module}.weight")
    wanted = FP8 if form.weights == "fp8" else torch.int8
    if codes.dtype != wanted:
        raise CheckpointError(f"{reader.folder}: {module}.weight is {codes.dtype}, config.json says {wanted}")
    _refuse_zero_points(reader, module)
    scales = reader.read(f"{module}.weight_scale").flatten()
    if len(scales) not in (1, len(codes)):
        raise CheckpointError(f"{reader.folder}: {module}.weight_scale has {len(scales)} scales for {len(codes)} rows")
    return _Part(codes, scales.expand(len(codes)).unsqueeze(1), None)


def _read_int4(reader: TensorReader, module: str, form: LayerFormat, num_inputs: int) -> _Part:
    reader.unused.discard(f"{module}.weight_shape")
    codes = unpack(reader.read(f"{module}.weight_packed"), 4, num_inputs)
    scales = reader.read(f"{module}.weight_scale")
    wanted = (len(codes), num_inputs // int(form.weights.split("_")[1].removeprefix("g")))
    if scales.shape != wanted:
        raise CheckpointError(f"{reader.folder}: {module}.weight_scale has shape {tuple(scales.shape)}, not {wanted}")
    if not form.weights.endswith("_asym"):
        _refuse_zero_points(reader, module)
        return _Part(codes, scales, None)
    packed = reader.read(f"{module}.weight_zero_point")
    return _Part(codes, scales, unpack(packed.t(), 4, len(codes)).t().contiguous())


def _refuse_zero_points(reader: TensorReader, module: str) -> None:
    """Symmetric layers need none; some writers store zeros."""
    name = f"{module}.weight_zero_point"
    if name in reader.unused and reader.read(name).any():
        raise CheckpointError(f"{reader.folder}: {name} is not zero, but config.json calls the layer symmetric")


def _refuse_shape(reader: TensorReader, modules: list[str], codes: Tensor, linear: nn.Linear) -> None:
    wanted = (linear.out_features, linear.in_features)
    if codes.shape != wanted:
        raise CheckpointError(
            f"{reader.folder}: {' and '.join(modules)} have shape {tuple(codes.shape)}, config.json says {wanted}. "
            "The weights do not belong to this config"
        )
