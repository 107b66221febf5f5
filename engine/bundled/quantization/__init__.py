"""Weight-only quantization: each format replaces the decoder's `nn.Linear` modules; the model never knows.

Embeddings, norms and the output head stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from engine.bundled.quantization.int4 import Int4Linear
from engine.bundled.quantization.int8 import Int8Linear
from engine.bundled.transformer import Decoder
from engine.config import WeightFormat

WEIGHT_FORMATS: dict[WeightFormat, Callable[[nn.Linear], nn.Module] | None] = {
    "bf16": None,
    "int8": Int8Linear,
    "int4_g32": partial(Int4Linear, group_size=32),
    "int4_g64": partial(Int4Linear, group_size=64),
    "int4_g128": partial(Int4Linear, group_size=128),
}


def quantize(decoder: Decoder, weight_format: WeightFormat) -> None:
    """Replace the projections of every layer, in place."""
    transform = WEIGHT_FORMATS[weight_format]
    if transform is None:
        return
    for layer in decoder.layers:
        for block in layer.children():
            for name, child in list(block.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(block, name, transform(child))
