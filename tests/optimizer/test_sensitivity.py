"""Losses of single layers, and a space with the mixes that follow."""

from pathlib import Path

import pytest
import yaml

from engine.artifacts.quantization_recipe import LayerFormat, layer_formats
from engine.config import EngineConfig, Quantization
from optimizer.candidate import make_config
from optimizer.errors import OptimizerError
from optimizer.mixed_precision import MixedPrecision
from optimizer.mixed_space import space_yaml, with_mixes
from optimizer.sensitivity import measure_sensitivities, units
from search_spaces.space import SearchSpace, load_search_space
from workloads.estimate import Estimate

LAYER = "model.layers.0"
SHAPES = {
    f"{LAYER}.self_attn.q_proj": (64, 64),
    f"{LAYER}.self_attn.k_proj": (32, 64),
    f"{LAYER}.self_attn.v_proj": (32, 64),
    f"{LAYER}.self_attn.o_proj": (64, 64),
    f"{LAYER}.mlp.gate_proj": (96, 64),
    f"{LAYER}.mlp.up_proj": (96, 64),
    f"{LAYER}.mlp.down_proj": (64, 96),
}
QKV = tuple(SHAPES)[:3]


class Meter:
    """Loses 0.1 nats for each weight matrix in int4, 0.001 in int8."""

    def kl(self, quantization: Quantization) -> Estimate:
        assert quantization.weights == "bf16", "all else is left as it is"
        loss = sum(0.001 if form == "int8" else 0.1 for form in quantization.overrides.values())
        return Estimate(value=loss, low=loss, high=loss, num_samples=1)


def test_what_engines_compute_as_one_is_one_unit() -> None:
    names = [tuple(name.rpartition(".")[2] for name in unit) for unit in units(SHAPES)]
    assert names == [("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",)]
    experts = {f"{LAYER}.mlp.experts.{n}.down_proj": (8, 8) for n in range(3)}
    assert units(experts) == [tuple(experts)]


def test_each_unit_is_measured_alone_in_the_formats_whose_groups_fit() -> None:
    found = measure_sensitivities(Meter(), SHAPES, ["int4_g64", "int8"])  # type: ignore[arg-type]
    assert [unit.layers for unit in found] == units(SHAPES)
    assert found[0].divergences == pytest.approx({"int4_g64": 0.3, "int8": 0.003})
    assert found[0].num_parameters == (64 + 32 + 32) * 64
    assert found[3].divergences == pytest.approx({"int8": 0.001}), "groups of 64 do not divide 96"
    assert measure_sensitivities(Meter(), SHAPES, ["int4_g128"])[0].divergences == {"bf16": 0.0}  # type: ignore[arg-type]


MIX = MixedPrecision(
    quantization=Quantization(weights="int4_g64", overrides=dict.fromkeys(QKV, "int8")),
    bits_per_weight=5.0,
    expected_divergence=0.01,
)


MIX_WITHOUT_INT8 = MixedPrecision(
    quantization=Quantization(weights="int4_g64", overrides=dict.fromkeys(QKV, "bf16")),
    bits_per_weight=8.0,
    expected_divergence=0.01,
)


def config_with(space: SearchSpace, weights: str) -> EngineConfig:
    name = next(n for n, p in space.parameters.items() if "quantization.weights" in p.fields(n))
    resolved = space.resolve(dict.fromkeys(space.unresolved())).space
    return make_config(EngineConfig(model="m"), resolved, resolved.default_assignment | {name: weights})


def test_a_mix_is_one_more_choice_of_the_weights_and_others_are_as_before(tmp_path: Path) -> None:
    made, path = with_mixes(load_search_space("bundled"), {"mixed_5_bits": MIX}), tmp_path / "mixed.yaml"
    path.write_text(space_yaml(made))
    for space in (made, load_search_space(path)):
        assert config_with(space, "mixed_5_bits").quantization == MIX.quantization
        assert config_with(space, "int8").quantization == Quantization(weights="int8")


def test_int8_layers_of_a_mix_have_the_activations_that_the_space_gives_int8() -> None:
    made = with_mixes(load_search_space("vllm-cpu"), {"mixed": MIX, "none": MIX_WITHOUT_INT8})
    resolved = made.resolve({"int8": "int8", "int4_g128": "int4_g128"}).space
    config = make_config(EngineConfig(model="m"), resolved, resolved.default_assignment | {"weights": "mixed"})
    found = layer_formats(config.quantization, list(SHAPES))
    assert {found[name] for name in QKV} == {LayerFormat("int8", "int8")}
    assert {found[name] for name in SHAPES if name not in QKV} == {LayerFormat("int4_g64", "bf16")}
    config = make_config(EngineConfig(model="m"), resolved, resolved.default_assignment | {"weights": "none"})
    assert config.quantization == MIX_WITHOUT_INT8.quantization


def test_a_space_without_weights_is_refused() -> None:
    space = load_search_space("bundled")
    name = next(n for n, p in space.parameters.items() if "quantization.weights" in p.fields(n))
    values = yaml.safe_load(space_yaml(space))
    del values["parameters"][name]
    with pytest.raises(OptimizerError, match="does not vary quantization"):
        with_mixes(SearchSpace.model_validate({**values, "name": "bare"}), {"m": MIX})
