"""Number formats of linear layers: each replaces the decoder's `nn.Linear` modules; the model never knows.

Embeddings, norms and the output head stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from engine.bundled.layer_formats import Formats, LayerFormat, matrix_formats
from engine.bundled.quantization.fp8 import Fp8DynamicLinear, Fp8Linear
from engine.bundled.quantization.int4 import Int4Linear
from engine.bundled.quantization.int8 import Int8DynamicLinear, Int8Linear
from engine.bundled.transformer import Decoder

TRANSFORMS: dict[LayerFormat, Callable[[nn.Linear], nn.Module]] = {
    LayerFormat("int8"): Int8Linear.quantize,
    LayerFormat("int8", "int8"): Int8DynamicLinear.quantize,
    LayerFormat("int4_g32"): partial(Int4Linear.quantize, group_size=32, symmetric=True),
    LayerFormat("int4_g64"): partial(Int4Linear.quantize, group_size=64, symmetric=True),
    LayerFormat("int4_g128"): partial(Int4Linear.quantize, group_size=128, symmetric=True),
    LayerFormat("int4_g32_asym"): partial(Int4Linear.quantize, group_size=32, symmetric=False),
    LayerFormat("int4_g64_asym"): partial(Int4Linear.quantize, group_size=64, symmetric=False),
    LayerFormat("int4_g128_asym"): partial(Int4Linear.quantize, group_size=128, symmetric=False),
    LayerFormat("fp8"): Fp8Linear.quantize,
    LayerFormat("fp8", "fp8"): Fp8DynamicLinear.quantize,
}


def quantize(decoder: Decoder, formats: Formats) -> None:
    """Replace the projections of every layer, in place; what is not `nn.Linear` any more was loaded quantized."""
    for number, layer in enumerate(decoder.layers):
        for name, form in matrix_formats(formats, number).items():
            module = layer.get_submodule(name)
            if isinstance(module, nn.Linear) and form.weights != "bf16":
                layer.set_submodule(name, TRANSFORMS[form](module))
