"""`Recipe`: which layers of a checkpoint get which number format and by which method. It does not quantize.

Formats are written in compressed-tensors' own fields, so that what is hashed is what is applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open

from engine.backend import EngineError, FailureKind
from engine.config import Quantization, WeightFormat

Activations = Literal["bf16", "int8", "fp8"]
Method = Literal["gptq", "round-to-nearest"]

# Engines join these layers into one product, which has one format.
FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
NEVER_QUANTIZED = ("lm_head", "embed_tokens", "gate")  # the last is a router of experts
_IGNORED = ("lm_head", "re:.*\\.gate$")  # the same in llm-compressor's words, of the layers it would take
_PAIRS: Mapping[str, str] = {"int8": "int8", "fp8": "fp8"}  # weights that an override may give their activations to


class LayerFormat(NamedTuple):
    """Number formats of one linear layer's operands."""

    weights: WeightFormat
    activations: Activations


class LayerGroup(BaseModel):
    """Layers of one format; `layers` is empty when these are all that are not in `Recipe.unquantized`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: WeightFormat
    activations: Activations
    method: Method
    layers: tuple[str, ...]
    scheme: dict[str, Any]  # compressed-tensors' `weights` and `input_activations`


class Recipe(BaseModel):
    """What is done to a checkpoint; equal recipes give equal weights whatever the config that asked for them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    groups: tuple[LayerGroup, ...]
    unquantized: tuple[str, ...]

    @property
    def needs_calibration(self) -> bool:
        return any(group.method == "gptq" for group in self.groups)

    def label(self) -> str:
        """`int4_g64 (gptq), int8/int8, bf16 in 7 layers`: weights, activations where quantized, method but rounding."""
        parts = [_group_label(group) for group in self.groups]
        kept = len(self.unquantized) - len(_IGNORED)
        return ", ".join(parts + [f"bf16 in {kept} layer{'s' * (kept > 1)}"] * (kept > 0))

    def modifiers(self) -> list[dict[str, Any]]:
        """One modifier of llm-compressor a method, as the worker's job holds them."""
        found: dict[Method, dict[str, Any]] = {}
        for number, group in enumerate(self.groups):
            ignore = list(self.unquantized)
            modifier = found.setdefault(group.method, {"method": group.method, "config_groups": {}, "ignore": ignore})
            targets = list(group.layers) or ["Linear"]
            modifier["config_groups"][f"group_{number}"] = {"targets": targets, **group.scheme}
        return list(found.values())


def make_recipe(quantization: Quantization, shapes: Mapping[str, tuple[int, int]], *, calibrated: bool) -> Recipe:
    """The recipe of a config for a checkpoint with these linear layers (`linear_layers`).

    Args:
        calibrated: there is calibration data, so that 4-bit integers are found by GPTQ instead of rounding.

    Raises:
        EngineError: formats that do not go together, a pattern that matches nothing, groups that do not divide a layer.
    """
    formats = layer_formats(quantization, list(shapes))
    by_format: dict[LayerFormat, list[str]] = {}
    for name, layer_format in formats.items():
        by_format.setdefault(layer_format, []).append(name)
    unquantized = sorted(name for name, found in formats.items() if found.weights == "bf16")
    quantized = {found: names for found, names in by_format.items() if found.weights != "bf16"}
    for layer_format, names in quantized.items():
        _refuse_ragged_groups(layer_format, names, shapes)
    everywhere = len(by_format) == 1
    groups = [
        _group(found, () if everywhere else tuple(sorted(names)), calibrated=calibrated)
        for found, names in sorted(quantized.items())
    ]
    return Recipe(groups=tuple(groups), unquantized=(*_IGNORED, *unquantized))


def layer_formats(quantization: Quantization, layers: list[str]) -> dict[str, LayerFormat]:
    """Each layer's format. An overridden layer keeps the activations' format where its weights pair with it.

    Raises:
        EngineError: a pattern that matches no layer, or parts of one fused layer that differ.
    """
    everywhere = LayerFormat(quantization.weights, quantization.activations)
    _refuse_unpaired(everywhere)
    formats = dict.fromkeys(layers, everywhere)
    for pattern, weights in quantization.overrides.items():
        matching = [name for name in layers if fnmatchcase(name, pattern)]
        if not matching:
            raise _unsupported(f"quantization.overrides: {pattern!r} matches no linear layer, e.g. {layers[0]}")
        for name in matching:
            formats[name] = LayerFormat(weights, _paired(weights, quantization.activations))
    _refuse_split_fusions(formats)
    return formats


def linear_layers(folder: Path) -> dict[str, tuple[int, int]]:
    """Name to (outputs, inputs) of every linear layer of the checkpoint that may be quantized, in order of name.

    Raises:
        EngineError: BAD_CHECKPOINT when the folder holds no such layers or cannot be read.
    """
    shapes: dict[str, tuple[int, int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as file:
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    shape = file.get_slice(name).get_shape()
                    if name.endswith(".weight") and len(shape) == 2:
                        shapes[name.removesuffix(".weight")] = (shape[0], shape[1])
        except (OSError, SafetensorError) as error:
            raise EngineError(f"cannot read {path}: {error}", kind=FailureKind.BAD_CHECKPOINT) from None
    found = {name: shapes[name] for name in sorted(shapes) if name.rsplit(".", 1)[-1] not in NEVER_QUANTIZED}
    if not found:
        message = f"{folder} has no linear layers in *.safetensors. Give a Hugging Face folder with its weights"
        raise EngineError(message, kind=FailureKind.BAD_CHECKPOINT)
    return found


def _paired(weights: WeightFormat, activations: Activations) -> Activations:
    return activations if _PAIRS.get(weights) == activations else "bf16"


def _group(layer_format: LayerFormat, layers: tuple[str, ...], *, calibrated: bool) -> LayerGroup:
    weights, activations = layer_format
    return LayerGroup(
        weights=weights,
        activations=activations,
        method="gptq" if calibrated and weights.startswith("int4") else "round-to-nearest",
        layers=layers,
        scheme={"weights": _weight_arguments(weights), "input_activations": _activation_arguments(activations)},
    )


def _group_label(group: LayerGroup) -> str:
    formats = group.weights if group.activations == "bf16" else f"{group.weights}/{group.activations}"
    return f"{formats} (gptq)" if group.method == "gptq" else formats


def _weight_arguments(weights: WeightFormat) -> dict[str, Any]:
    if weights == "nvfp4":
        scales = {"scale_dtype": "torch.float8_e4m3fn", "zp_dtype": "torch.float8_e4m3fn"}
        group = {"strategy": "tensor_group", "group_size": 16, **scales}
        return {"num_bits": 4, "type": "float", "symmetric": True, "dynamic": False, **group}
    if weights in ("int8", "fp8"):
        kind = "int" if weights == "int8" else "float"
        return {"num_bits": 8, "type": kind, "strategy": "channel", "symmetric": True, "dynamic": False}
    symmetric = not weights.endswith("_asym")
    group = {"strategy": "group", "group_size": group_size(weights)}
    return {"num_bits": 4, "type": "int", "symmetric": symmetric, "dynamic": False, **group}


def _activation_arguments(activations: Activations) -> dict[str, Any] | None:
    if activations == "bf16":
        return None
    kind = "int" if activations == "int8" else "float"
    return {"num_bits": 8, "type": kind, "strategy": "token", "symmetric": True, "dynamic": True}


def group_size(weights: WeightFormat) -> int | None:
    """Inputs that share a scale; None where a whole output row does."""
    if weights == "nvfp4":
        return 16
    return int(weights.split("_")[1].removeprefix("g")) if weights.startswith("int4") else None


def _refuse_unpaired(layer_format: LayerFormat) -> None:
    weights, activations = layer_format
    known = {"bf16": ("bf16",), "int8": ("bf16", "int8"), "fp8": ("bf16", "fp8"), "nvfp4": ("bf16",)}
    if activations not in known.get(weights, ("bf16", "int8", "fp8")):
        raise _unsupported(f"no checkpoint has {weights} weights with {activations} activations")


def _refuse_split_fusions(formats: Mapping[str, LayerFormat]) -> None:
    for name, layer_format in formats.items():
        parent, _, own = name.rpartition(".")
        for parts in FUSED:
            others = [f"{parent}.{part}" for part in parts if own in parts]
            differing = next((other for other in others if formats.get(other, layer_format) != layer_format), None)
            if differing:
                raise _unsupported(
                    f"quantization.overrides give {name} {layer_format.weights} and {differing} "
                    f"{formats[differing].weights}, which engines compute as one layer. Give both the same format"
                )


def _refuse_ragged_groups(layer_format: LayerFormat, names: list[str], shapes: Mapping[str, tuple[int, int]]) -> None:
    size = group_size(layer_format.weights)
    ragged = next((name for name in names if size and shapes[name][1] % size), None)
    if ragged:
        raise _unsupported(
            f"{layer_format.weights}: {ragged} has {shapes[ragged][1]} inputs, which groups of {size} do not divide. "
            "Take smaller groups"
        )


def _unsupported(message: str) -> EngineError:
    return EngineError(message, kind=FailureKind.UNSUPPORTED)
