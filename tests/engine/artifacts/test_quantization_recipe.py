"""Recipes: which layer gets which format, and the key that names what comes out."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.artifacts.provenance import Ingredients
from engine.artifacts.quantization_recipe import linear_layers, make_recipe
from engine.backend import EngineError, FailureKind
from engine.config import Quantization, WeightFormat

OWN = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
       "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # fmt: skip
SHAPES = {f"model.layers.{layer}.{own}": (256, 256) for layer in range(3) for own in OWN}

# Patterns that never part a fused layer, and never overlap.
disjoint = st.dictionaries(
    st.sampled_from([f"model.layers.{n}.{part}" for n in range(3) for part in ("mlp.*", "self_attn.*")]),
    st.sampled_from(["bf16", "int8", "int4_g64", "int4_g128_asym"]),
)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)


def key(
    quantization: Quantization,
    *,
    source: str = "s",
    data: str | None = None,
    version: str = "1",
    worker: str = "w",
    gptq: bool = False,
) -> str:
    recipe = make_recipe(quantization, SHAPES, calibrated=gptq)
    versions = {"llmcompressor": version}
    return Ingredients(
        source_sha256=source, recipe=recipe, calibration_sha256=data, versions=versions, worker_sha256=worker
    ).key()


@given(overrides=disjoint, order=st.randoms(use_true_random=False))
def test_the_key_does_not_depend_on_the_order_of_overrides(overrides: dict[str, WeightFormat], order: object) -> None:
    pairs = list(overrides.items())
    shuffle = getattr(order, "shuffle")  # noqa: B009 (hypothesis types it as object)
    shuffle(pairs)
    quantization = Quantization(weights="int8", activations="int8", overrides=overrides)
    assert key(quantization) == key(quantization.model_copy(update={"overrides": dict(pairs)}))


@given(overrides=disjoint)
def test_the_key_depends_on_what_each_layer_gets_and_not_on_how_it_was_said(overrides: dict[str, WeightFormat]) -> None:
    said = Quantization(weights="int8", activations="int8", overrides=overrides)
    one_by_one = {
        name: weights for pattern, weights in overrides.items() for name in SHAPES if name.startswith(pattern[:-1])
    }
    assert key(said) == key(said.model_copy(update={"overrides": one_by_one}))
    plain = Quantization(weights="int8", activations="int8")
    assert (key(said) == key(plain)) == all(weights == "int8" for weights in overrides.values())


@settings(max_examples=15)
@given(source=digests, data=digests, version=st.text(min_size=1, max_size=8))
def test_the_key_depends_on_each_ingredient(source: str, data: str, version: str) -> None:
    plain = Quantization(weights="int4_g64")
    keys = {
        key(plain),
        key(plain, source=source),
        key(plain, data=data),
        key(plain, version="v" + version),
        key(plain, worker=source),
        key(plain, gptq=True),
        key(Quantization(weights="int4_g128")),
        key(Quantization(weights="int4_g64_asym")),
        key(Quantization(weights="int4_g64", activations="int8")),
        key(Quantization(weights="int8")),
        key(Quantization(weights="fp8")),
        key(Quantization(weights="nvfp4")),
    }
    assert len(keys) == 12


def test_caches_and_communication_are_not_of_the_checkpoint() -> None:
    other = Quantization(weights="int8", kv_cache="fp8", communication="int8")
    assert key(other) == key(Quantization(weights="int8"))


def test_the_last_pattern_that_matches_holds_and_activations_follow_where_they_pair() -> None:
    overrides: dict[str, WeightFormat] = {"*.mlp.*": "int4_g64", "model.layers.2.*": "bf16"}
    recipe = make_recipe(Quantization(weights="int8", activations="int8", overrides=overrides), SHAPES, calibrated=True)
    kept = sum(".2." in name for name in SHAPES)
    assert recipe.label() == f"int4_g64 (gptq), int8/int8, bf16 in {kept} layers"
    four, eight = recipe.groups
    assert set(four.layers) == {f"model.layers.{n}.mlp.{own}_proj" for n in (0, 1) for own in ("gate", "up", "down")}
    assert len(eight.layers) == 8
    assert {name for name in SHAPES if ".2." in name} < set(recipe.unquantized)
    methods = {modifier["method"]: list(modifier["config_groups"]) for modifier in recipe.modifiers()}
    assert methods == {"gptq": ["group_0"], "round-to-nearest": ["group_1"]}


@pytest.mark.parametrize(
    ("quantization", "words"),
    [
        (Quantization(weights="int8", overrides={"*.nothing": "bf16"}), "matches no linear layer"),
        (Quantization(weights="int8", overrides={"*.k_proj": "int4_g64"}), "as one layer"),
        (Quantization(weights="fp8", activations="int8"), "no checkpoint has fp8 weights with int8"),
        (Quantization(weights="bf16", activations="int8"), "no checkpoint has bf16 weights with int8"),
        (Quantization(weights="nvfp4", activations="fp8"), "no checkpoint has nvfp4"),
    ],
)
def test_what_no_checkpoint_can_hold_is_refused(quantization: Quantization, words: str) -> None:
    with pytest.raises(EngineError, match=words) as refusal:
        make_recipe(quantization, SHAPES, calibrated=False)
    assert refusal.value.kind is FailureKind.UNSUPPORTED


def test_groups_that_do_not_divide_a_layer_are_refused() -> None:
    with pytest.raises(EngineError, match="has 192 inputs, which groups of 128 do not divide"):
        make_recipe(Quantization(weights="int4_g128"), {"model.layers.0.mlp.down_proj": (64, 192)}, calibrated=False)


def test_linear_layers_are_read_from_the_weights_alone(tiny_model: Path, tmp_path: Path) -> None:
    layers = linear_layers(tiny_model)
    assert len(layers) == 14
    assert layers["model.layers.1.mlp.down_proj"] == (64, 128)
    with pytest.raises(EngineError, match="has no linear layers") as refusal:
        linear_layers(tmp_path)
    assert refusal.value.kind is FailureKind.BAD_CHECKPOINT
    (tmp_path / "model.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(EngineError, match="cannot read"):
        linear_layers(tmp_path)
