"""Formats by layer: the least divergence within a size."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import Quantization, WeightFormat
from optimizer.errors import OptimizerError
from optimizer.mixed_precision import LayerSensitivity, MixedPrecision, bits_per_weight, least_divergence

FORMATS: tuple[WeightFormat, ...] = ("int4_g128", "int4_g32", "int8")


def unit(number: int, num_parameters: int, divergences: tuple[float, ...]) -> LayerSensitivity:
    return LayerSensitivity(
        layers=(f"layers.{number}.q_proj", f"layers.{number}.k_proj"),
        num_parameters=num_parameters,
        num_inputs=256,
        divergences=dict(zip(FORMATS, divergences, strict=True)),
    )


units = st.lists(
    st.tuples(st.integers(1, 1000), st.tuples(*[st.floats(0, 1)] * len(FORMATS))), min_size=1, max_size=5
).map(lambda found: [unit(number, size, costs) for number, (size, costs) in enumerate(found)])


def plan(sensitivities: list[LayerSensitivity], bits: float) -> MixedPrecision:
    return least_divergence(sensitivities, max_bits_per_weight=bits, base=Quantization())


@settings(max_examples=40)
@given(sensitivities=units, bits=st.floats(4.2, 9))
def test_no_other_choice_of_that_size_loses_less(sensitivities: list[LayerSensitivity], bits: float) -> None:
    found = plan(sensitivities, bits)
    total = sum(each.num_parameters for each in sensitivities)
    best = float("inf")
    for choice in itertools.product(FORMATS, repeat=len(sensitivities)):
        pairs = list(zip(sensitivities, choice, strict=True))
        if sum(bits_per_weight(w, 256) * each.num_parameters for each, w in pairs) <= bits * total:
            best = min(best, sum(each.divergences[w] for each, w in pairs))
    assert found.bits_per_weight <= bits + 1e-6
    assert found.expected_divergence == pytest.approx(best, abs=1e-5)


def test_the_sensitive_layer_keeps_its_bits() -> None:
    sensitivities = [unit(0, 100, (0.5, 0.3, 0.01)), unit(1, 300, (0.02, 0.01, 0.001))]
    found = plan(sensitivities, 5.2)
    assert found.quantization.weights == "int4_g128"
    assert found.quantization.overrides == {"layers.0.q_proj": "int8", "layers.0.k_proj": "int8"}
    assert found.expected_divergence == pytest.approx(0.03)


def test_a_size_that_no_mix_has_is_refused() -> None:
    with pytest.raises(OptimizerError, match=r"the smallest has 4\.12"):
        plan([unit(0, 100, (0.5, 0.3, 0.01))], 4.0)


def test_stored_bits_count_scales_and_zero_points() -> None:
    assert bits_per_weight("bf16", 256) == 16
    assert bits_per_weight("int8", 256) == 8.0625
    assert bits_per_weight("int4_g32", 256) == 4.5
    assert bits_per_weight("int4_g32_asym", 256) == 4.625
    assert bits_per_weight("nvfp4", 256) == 4.5
