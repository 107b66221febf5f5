"""Which layer gets which format."""

import pytest

from engine.bundled.errors import UnsupportedError
from engine.bundled.layer_formats import LayerFormat, layer_formats, matrix_formats
from engine.config import Quantization


def formats(**fields: object) -> dict[str, LayerFormat]:
    return layer_formats(Quantization.model_validate(fields), {}, 2)


def test_the_last_pattern_that_matches_holds() -> None:
    found = formats(
        weights="int8",
        overrides={"model.layers.1.*": "int4_g32", "*.down_proj": "bf16", "model.layers.1.mlp.down_proj": "fp8"},
    )
    assert found["model.layers.0.self_attn.q_proj"] == LayerFormat("int8")
    assert found["model.layers.0.mlp.down_proj"] == LayerFormat("bf16")
    assert found["model.layers.1.self_attn.o_proj"] == LayerFormat("int4_g32")
    assert found["model.layers.1.mlp.down_proj"] == LayerFormat("fp8")
    assert len(found) == 14
    assert matrix_formats(found, 1)["mlp.gate_up_proj"] == LayerFormat("int4_g32")


def test_activations_go_with_weights_of_their_format() -> None:
    found = formats(weights="int8", activations="int8", overrides={"*.down_proj": "int4_g32"})
    assert found["model.layers.0.self_attn.o_proj"] == LayerFormat("int8", "int8")
    assert found["model.layers.0.mlp.down_proj"] == LayerFormat("int4_g32")
    alone = formats(activations="int8", overrides={"*.down_proj": "int8"})
    assert alone["model.layers.0.mlp.down_proj"] == LayerFormat("int8", "int8")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"weights": "nvfp4"}, r"has no quantization.weights nvfp4"),
        ({"overrides": {"*": "nvfp4"}}, r"has no quantization.overrides '\*' nvfp4"),
        ({"activations": "int8"}, "Set quantization.weights to int8 too"),
        ({"weights": "int8", "activations": "fp8"}, "needs weights of the same format"),
        (
            {"overrides": {"model.layers.0.self_atn.o_proj": "int8"}},
            r"matches no linear layer of this model. The nearest is model.layers.0.self_attn.o_proj$",
        ),
        ({"overrides": {"lm_head": "int8"}}, "'lm_head' matches no linear layer"),
        ({"overrides": {"*.q_proj": "int8"}}, "layer 0: q_proj int8, k_proj bf16, v_proj bf16, but they are one"),
    ],
)
def test_what_cannot_be_done_is_said(fields: dict[str, object], words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        formats(**fields)


def test_a_quantized_checkpoint_is_taken_as_it_is() -> None:
    stored = {"model.layers.0.mlp.down_proj": LayerFormat("fp8", "fp8")}
    found = layer_formats(Quantization(kv_cache="int8"), stored, 2)
    assert found["model.layers.0.mlp.down_proj"] == LayerFormat("fp8", "fp8")
    assert found["model.layers.1.mlp.down_proj"] == LayerFormat()
    with pytest.raises(UnsupportedError, match="already quantized"):
        layer_formats(Quantization(weights="int8"), stored, 2)
