"""Which layers get which weight format so that a model of a given size loses least: overrides of a `Quantization`.

It does not measure: divergences of single layers are given, and taken to add up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_array

from engine.artifacts.quantization_recipe import group_size
from engine.config import Quantization, WeightFormat
from optimizer.errors import OptimizerError

_SCALE_BITS = 16


@dataclass(frozen=True, kw_only=True)
class LayerSensitivity:
    """What quantizing some layers alone costs; they share a format because engines compute them as one.

    `divergences` are mean KL in nats a token, by format; bf16, where it is a choice, has 0.
    """

    layers: tuple[str, ...]  # names in the checkpoint
    num_parameters: int
    num_inputs: int  # of each layer
    divergences: Mapping[WeightFormat, float]


@dataclass(frozen=True, kw_only=True)
class MixedPrecision:
    """A choice of format for each layer, with what it is expected to cost."""

    quantization: Quantization
    bits_per_weight: float  # scales and zero points included
    expected_divergence: float  # nats a token, the sum of the layers' own


def bits_per_weight(weights: WeightFormat, num_inputs: int) -> float:
    """Stored bits of one weight: its number, and its part of the scale and zero point of its group."""
    group = group_size(weights) or num_inputs
    if weights == "bf16":
        return 16.0
    if weights == "nvfp4":
        return 4 + 8 / group
    if weights in ("int8", "fp8"):
        return 8 + _SCALE_BITS / group
    zero_point = 4 if weights.endswith("_asym") else 0
    return 4 + (_SCALE_BITS + zero_point) / group


def average_bits(sensitivities: Sequence[LayerSensitivity], weights: WeightFormat) -> float:
    """Stored bits of one weight when all layers have the same format."""
    total = sum(unit.num_parameters for unit in sensitivities)
    return sum(bits_per_weight(weights, unit.num_inputs) * unit.num_parameters / total for unit in sensitivities)


def least_divergence(
    sensitivities: Sequence[LayerSensitivity], *, max_bits_per_weight: float, base: Quantization
) -> MixedPrecision:
    """The choice of least expected divergence within an average size, exactly (a multiple-choice knapsack).

    Args:
        base: gives activations and caches; its weights become the format that most weights have.

    Raises:
        OptimizerError: even the smallest formats are larger.
    """
    choices = [(unit, weights) for unit in sensitivities for weights in unit.divergences]
    total = sum(unit.num_parameters for unit in sensitivities)
    sizes = np.array([bits_per_weight(w, unit.num_inputs) * unit.num_parameters / total for unit, w in choices])
    costs = np.array([unit.divergences[weights] for unit, weights in choices])
    one_each = lil_array((len(sensitivities), len(choices)))
    rows = {id(unit): row for row, unit in enumerate(sensitivities)}
    for column, (unit, _) in enumerate(choices):
        one_each[rows[id(unit)], column] = 1
    solved = milp(
        costs,
        integrality=np.ones(len(choices), dtype=np.int64),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(one_each.tocsr(), 1, 1), LinearConstraint(sizes, -np.inf, max_bits_per_weight)],
    )
    if solved.x is None:
        smallest = _smallest(sensitivities, total)
        raise OptimizerError(
            f"no mix has {max_bits_per_weight:g} bits a weight: the smallest has {smallest:.3g}. Allow more bits"
        )
    taken = np.flatnonzero(solved.x > 0.5)
    chosen = [choices[index] for index in taken]
    return MixedPrecision(
        quantization=_quantization(chosen, base),
        bits_per_weight=float(sizes[taken].sum()),
        expected_divergence=float(costs[taken].sum()),
    )


def _smallest(sensitivities: Sequence[LayerSensitivity], total: int) -> float:
    return sum(
        min(bits_per_weight(weights, unit.num_inputs) for weights in unit.divergences) * unit.num_parameters / total
        for unit in sensitivities
    )


def _quantization(chosen: list[tuple[LayerSensitivity, WeightFormat]], base: Quantization) -> Quantization:
    weighed: Counter[WeightFormat] = Counter()
    for unit, weights in chosen:
        weighed[weights] += unit.num_parameters
    common = weighed.most_common(1)[0][0]
    overrides = {name: weights for unit, weights in chosen if weights != common for name in unit.layers}
    return base.model_copy(update={"weights": common, "overrides": overrides})
