"""`LayerFormat` of every linear layer: which numbers its weights are stored in and its inputs are rounded to.

Does not import torch, so that a config can be refused without it. Layers go by their names in the checkpoint.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from engine.bundled.errors import UnsupportedError
from engine.config import ActivationFormat, Quantization, WeightFormat

WEIGHT_FORMATS: tuple[WeightFormat, ...] = (  # that this engine makes
    "bf16",
    "int8",
    *("int4_g32", "int4_g64", "int4_g128"),
    *("int4_g32_asym", "int4_g64_asym", "int4_g128_asym"),
    "fp8",
)
MATRICES: dict[str, tuple[str, ...]] = {  # a layer's matrices here, and what each is made of in a checkpoint
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
}
MODULES = tuple(part for parts in MATRICES.values() for part in parts)  # in the order of `ModelShape.linear_shapes`


class LayerFormat(NamedTuple):
    """`bf16` means the type the model computes in."""

    weights: WeightFormat = "bf16"
    activations: ActivationFormat = "bf16"


Formats = Mapping[str, LayerFormat]  # by module, e.g. `model.layers.0.self_attn.q_proj`


def module_names(num_layers: int) -> list[str]:
    """Checkpoint names of all linear layers but the output head, which keeps its type."""
    return [f"model.layers.{layer}.{module}" for layer in range(num_layers) for module in MODULES]


def layer_formats(asked: Quantization, stored: Formats, num_layers: int) -> dict[str, LayerFormat]:
    """What the config asks for, or what a quantized checkpoint (`stored`, else empty) already is.

    Raises:
        UnsupportedError: both, a format this engine lacks, a pattern without a match, activations without weights of
            their format, or matrices that are one here in different formats.
    """
    names = module_names(num_layers)
    if stored:
        _refuse_quantizing_again(asked)
        formats = {name: stored.get(name, LayerFormat()) for name in names}
    else:
        formats = _asked_formats(asked, names)
    for layer in range(num_layers):
        matrix_formats(formats, layer)
    return formats


def _asked_formats(asked: Quantization, names: list[str]) -> dict[str, LayerFormat]:
    weights = _weights(asked, names)
    formats = {name: LayerFormat(w, asked.activations if w == asked.activations else "bf16") for name, w in weights}
    if asked.activations != "bf16" and all(found.activations == "bf16" for found in formats.values()):
        raise UnsupportedError(
            f"quantization.activations {asked.activations} needs weights of the same format. "
            f"Set quantization.weights to {asked.activations} too"
        )
    return formats


def matrix_formats(formats: Formats, layer: int) -> dict[str, LayerFormat]:
    """Formats of one layer's matrices, by their names here.

    Raises:
        UnsupportedError: the parts of one matrix differ.
    """
    found = {}
    for matrix, modules in MATRICES.items():
        parts = {module: formats[f"model.layers.{layer}.{module}"] for module in modules}
        if len(set(parts.values())) > 1:
            told = ", ".join(f"{name.rpartition('.')[2]} {form.weights}" for name, form in parts.items())
            raise UnsupportedError(
                f"layer {layer}: {told}, but they are one matrix in this engine. Give all of them the same format"
            )
        found[matrix] = parts[modules[0]]
    return found


def _refuse_quantizing_again(asked: Quantization) -> None:
    if asked.weights != "bf16" or asked.activations != "bf16" or asked.overrides:
        raise UnsupportedError(
            "the checkpoint is already quantized. Leave quantization.weights, activations and overrides out, "
            "or give the unquantized checkpoint"
        )


def _weights(asked: Quantization, names: list[str]) -> Iterator[tuple[str, WeightFormat]]:
    for name in ("weights", *asked.overrides):
        wanted = asked.weights if name == "weights" else asked.overrides[name]
        if wanted not in WEIGHT_FORMATS:
            where = "weights" if name == "weights" else f"overrides {name!r}"
            raise UnsupportedError(
                f"the bundled engine has no quantization.{where} {wanted}. Use one of {', '.join(WEIGHT_FORMATS)}"
            )
    for pattern in asked.overrides:
        if not any(fnmatchcase(name, pattern) for name in names):
            nearest = difflib.get_close_matches(pattern, names, 1, 0.0)[0]
            raise UnsupportedError(
                f"quantization.overrides: {pattern!r} matches no linear layer of this model. The nearest is {nearest}"
            )
    for name in names:
        matching = [weights for pattern, weights in asked.overrides.items() if fnmatchcase(name, pattern)]
        yield name, (matching or [asked.weights])[-1]
