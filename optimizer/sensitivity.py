"""How much each part of a model loses when it alone is quantized: what `mixed_precision.py` chooses by.

Does not choose formats.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from engine.artifacts.quantization_recipe import FUSED, group_size
from engine.config import Quantization, WeightFormat
from optimizer.client import Report, silent
from optimizer.mixed_precision import LayerSensitivity
from optimizer.quality.meter import QualityMeter

_EXPERT = re.compile(r"\.experts\.\d+\.")
Shapes = Mapping[str, tuple[int, int]]


def units(shapes: Shapes) -> list[tuple[str, ...]]:
    """Layers that share a format, in order of the checkpoint's names.

    Engines compute query, key and value as one product, and gate and up; the experts of one layer are one kernel.

    Args:
        shapes: name to (outputs, inputs) of each linear layer (`linear_layers`).
    """
    found: dict[str, list[str]] = {}
    for name in shapes:
        found.setdefault(_unit_of(name), []).append(name)
    return [tuple(names) for names in found.values()]


def _unit_of(name: str) -> str:
    parent, _, own = _EXPERT.sub(".experts.*.", name).rpartition(".")
    parts = next((parts for parts in FUSED if own in parts), (own,))
    return f"{parent}.{'+'.join(parts)}"


def measure_sensitivities(
    meter: QualityMeter, shapes: Shapes, formats: Sequence[WeightFormat], *, report: Report = silent
) -> list[LayerSensitivity]:
    """Every unit in each format whose groups divide its inputs, all else unquantized.

    Raises:
        EngineError: the engine failed, or has no such format.
    """
    planned = units(shapes)
    found = []
    for number, layers in enumerate(planned, start=1):
        report(f"layers {number}/{len(planned)}: {layers[0]}")
        num_inputs = shapes[layers[0]][1]
        found.append(
            LayerSensitivity(
                layers=layers,
                num_parameters=sum(math.prod(shapes[name]) for name in layers),
                num_inputs=num_inputs,
                divergences=dict(_alone(meter, layers, [f for f in formats if num_inputs % (group_size(f) or 1) == 0])),
            )
        )
    return found


def _alone(
    meter: QualityMeter, layers: tuple[str, ...], formats: Sequence[WeightFormat]
) -> Iterator[tuple[WeightFormat, float]]:
    for weights in formats:
        yield weights, meter.kl(Quantization(overrides=dict.fromkeys(layers, weights))).value
    if not formats:
        yield "bf16", 0.0
