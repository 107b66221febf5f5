"""Sizes from config.json against the checkpoint's own bytes and arithmetic done by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from engine.bundled.layer_formats import layer_formats
from engine.checkpoint_tensors import tensor_shapes
from engine.config import EngineConfig, Quantization
from engine.memory import (
    _container_left_bytes,
    beside_bytes,
    device_memory,
    kv_bytes_per_token,
    local_available_bytes,
    one_sequence_bytes,
    plain_bytes,
    required_bytes,
    weight_bytes,
)
from engine.model_shape import ModelShape, ModelShapeError, load_model_shape


def shape(**fields: object) -> ModelShape:
    """Hidden 64, FFN 128, 2 layers, 4 heads of 16 over 2 key-value heads."""
    values = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 100,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    }
    return ModelShape.model_validate({**values, **fields})


def test_parameters_are_those_of_the_checkpoint(tiny_model: Path) -> None:
    with safe_open(tiny_model / "model.safetensors", framework="np") as file:
        stored = sum(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118 (not a dict)
    assert load_model_shape(tiny_model).num_parameters == stored


def test_weights_take_their_formats_bytes() -> None:
    # A layer: q 64x64, k and v 32x64, o 64x64, gate and up 128x64, down 64x128 = 36,864 numbers; twice 73,728.
    # The rest: 100x64 embedding, 2x2x64 layer norms, 64 final norm = 6,720 numbers.
    assert weight_bytes(shape()) == 2 * (73_728 + 6_720)
    assert weight_bytes(shape(), dtype="float32") == 4 * (73_728 + 6_720)
    # Rows of a layer, one bf16 scale each: 64 + 32 + 32 + 64 + 128 + 128 + 64 = 512.
    assert weight_bytes(shape(), weights="int8") == 73_728 + 2 * 512 * 2 + 2 * 6_720
    # A scale of 2 bytes for 32 numbers, and a zero point of 1.
    assert weight_bytes(shape(), weights="int4_g32") == 73_728 // 2 + 73_728 // 32 * 2 + 2 * 6_720
    assert weight_bytes(shape(), weights="int4_g32_asym") == 73_728 // 2 + 73_728 // 32 * 3 + 2 * 6_720


def test_untied_heads_biases_and_norms_count() -> None:
    tied = shape().num_parameters
    assert shape(tie_word_embeddings=False).num_parameters - tied == 6_400
    assert shape(architectures=["Qwen2ForCausalLM"]).num_parameters - tied == 2 * (64 + 32 + 32)
    assert shape(architectures=["Qwen3ForCausalLM"]).num_parameters - tied == 2 * 2 * 16


def test_a_token_keeps_keys_and_values_in_every_layer() -> None:
    assert kv_bytes_per_token(shape()) == 2 * 2 * 32 * 2
    assert kv_bytes_per_token(shape(dtype="float32")) == 2 * 2 * 32 * 4
    assert kv_bytes_per_token(shape(), kv_cache="fp8") == 2 * 2 * 32
    assert kv_bytes_per_token(shape(), kv_cache="int8") == 2 * 2 * (32 + 2 * 4)  # a scale for each of two heads
    config = EngineConfig(model="m", max_model_len=16, quantization={"kv_cache": "fp8"})
    assert one_sequence_bytes(config, shape(), shape()) == 2 * 16 * 128
    assert device_memory(config, shape(), memory_gib=4).block_bytes == 16 * 128


def test_single_modules_may_have_formats_of_their_own() -> None:
    formats = layer_formats(Quantization(overrides={"*.down_proj": "int8"}), {}, 2)
    # down is 64 x 128 in both layers: a byte less for each number, and 64 scales of 2 bytes.
    assert weight_bytes(shape(), formats=formats) == weight_bytes(shape()) - 2 * (64 * 128 - 64 * 2)


def test_one_sequence_takes_whole_blocks_of_model_and_draft() -> None:
    config = EngineConfig(model="m", max_model_len=17, block_size=16)
    assert one_sequence_bytes(config, shape()) == 32 * 256
    assert one_sequence_bytes(config, shape(), shape(num_hidden_layers=1)) == 32 * (256 + 128)


def test_loading_holds_the_unquantized_weights() -> None:
    config = EngineConfig(model="m", max_model_len=16, quantization={"weights": "int4_g32"})
    assert required_bytes(config, shape()) == weight_bytes(shape())
    small = weight_bytes(shape(), weights="int4_g32")
    assert small < required_bytes(config, shape(), stored_quantized=True) < weight_bytes(shape())
    asked = EngineConfig(model="m", kv_cache_memory_bytes=10**9)
    assert required_bytes(asked, shape()) == weight_bytes(shape()) + 10**9


@given(weights=st.sampled_from(["int8", "int4_g32", "int4_g64", "int4_g128"]), width=st.sampled_from([128, 256, 1024]))
def test_quantization_never_grows_a_model(weights: str, width: int) -> None:
    model = shape(hidden_size=width, intermediate_size=2 * width)
    assert weight_bytes(model, weights=weights) < weight_bytes(model)


def test_a_containers_limit_bounds_what_is_available(tmp_path: Path) -> None:
    assert local_available_bytes() > 0
    assert _container_left_bytes(tmp_path) is None
    (tmp_path / "memory.current").write_text("300\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert _container_left_bytes(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert _container_left_bytes(tmp_path) == 700


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "is not JSON"), ("[]", "config.json"), ('{"architectures": ["X"]}', "hidden_size"), (None, "no readable")],
)
def test_a_folder_that_is_no_checkpoint_says_so(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelShapeError, match=words):
        load_model_shape(tmp_path)
    with pytest.raises(ModelShapeError, match="no model folder"):
        load_model_shape(tmp_path / "missing")


def test_heads_and_dtype_are_filled_in_as_hugging_face_does(tmp_path: Path) -> None:
    values = shape().model_dump(exclude={"num_key_value_heads", "head_dim", "dtype"})
    (tmp_path / "config.json").write_text(json.dumps({**values, "torch_dtype": "bfloat16", "head_dim": None}))
    found = load_model_shape(tmp_path)
    assert (found.num_key_value_heads, found.head_dim, found.dtype) == (4, 16, "bfloat16")


def test_a_device_holds_its_share_of_weights_and_heads() -> None:
    config = EngineConfig(model="m", max_model_len=64, max_num_seqs=8, max_num_batched_tokens=16)
    one = device_memory(config, shape(), memory_gib=4)
    assert one.weights_bytes == weight_bytes(shape())
    assert one.block_bytes == 16 * 256
    # 2 x 64 of the residual stream, 64 + 2 x 32 + 2 x 128 of products, 2 bytes each; 8 rows of 100 logits in float32.
    assert one.activations_bytes == 16 * (128 + 64 + 64 + 256) * 2 + 8 * 100 * 4
    assert one.usable_bytes == int(3.6 * 2**30)
    split = device_memory(config.model_copy(update={"tensor_parallel_size": 4}), shape(), memory_gib=4)
    assert split.weights_bytes == weight_bytes(shape()) // 4
    assert split.block_bytes == 16 * 128  # two heads over four devices: one each
    assert split.num_blocks > one.num_blocks


def test_a_draft_model_and_its_cache_are_counted_whole_on_every_device() -> None:
    small = shape(num_hidden_layers=1)
    # One layer of 36,864 numbers, 6,400 of embedding, three norms of 64.
    draft_bytes = 2 * (36_864 + 6_400 + 3 * 64)
    drafting = {"speculative_config": {"method": "draft_model", "num_speculative_tokens": 2, "model": "d"}}
    config = EngineConfig.model_validate({"model": "m", "max_model_len": 16, "tensor_parallel_size": 2, **drafting})
    plain = config.model_copy(update={"speculative_config": None})
    beside, alone = device_memory(config, shape(), 4, small), device_memory(plain, shape(), 4)
    assert beside.weights_bytes - alone.weights_bytes == draft_bytes
    assert beside.block_bytes - alone.block_bytes == 16 * 128
    assert required_bytes(config, shape(), small) - required_bytes(plain, shape()) == draft_bytes + 16 * 128


def test_medusa_heads_are_counted(tmp_path: Path) -> None:
    said = {"model_type": "medusa", "hidden_size": 64, "vocab_size": 100, "num_heads": 3, "num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(said))
    speculation = {"method": "medusa", "num_speculative_tokens": 3, "model": str(tmp_path)}
    config = EngineConfig.model_validate({"model": "m", "max_model_len": 16, "speculative_config": speculation})
    plain = config.model_copy(update={"speculative_config": None})
    heads = 3 * (64 * 64 + 100 * 64) * 2
    assert beside_bytes(config, shape()) == heads
    assert required_bytes(config, shape()) - required_bytes(plain, shape()) == heads
    assert device_memory(config, shape(), 4).num_blocks < device_memory(plain, shape(), 4).num_blocks


def test_an_eagle_head_has_a_layer_and_a_mix_but_no_tables() -> None:
    speculation = {"method": "eagle", "num_speculative_tokens": 3, "model": "head"}
    config = EngineConfig.model_validate({"model": "m", "max_model_len": 16, "speculative_config": speculation})
    # 36,864 numbers of a layer, one norm of 64, a mix of 64 x 128.
    assert beside_bytes(config, shape(), shape(num_hidden_layers=1)) == 2 * (36_864 + 64 + 64 * 128)


def test_adapters_take_slots_of_the_largest_rank() -> None:
    lora = {"lora_modules": {"a": "x", "b": "y"}, "max_loras": 2, "max_lora_rank": 8}
    config = EngineConfig.model_validate({"model": "m", "engine": "vllm", **lora})
    # In + out of q 128, k and v 96 each, o 128, gate and up 192 each, down 192 = 1,024; rank 8, two layers, two slots.
    assert beside_bytes(config, shape()) == 2 * 2 * 8 * 1_024 * 2
    # On two devices B of q, k, v, gate and up is halved (in 320, out 192), A of o and down (in 96, out 128).
    halves = config.model_copy(update={"tensor_parallel_size": 2})
    assert beside_bytes(halves, shape()) == 2 * 2 * 8 * (320 + 192 + 96 + 128) * 2
    assert beside_bytes(config.model_copy(update={"lora_modules": {}}), shape()) == 0


def test_the_bundled_engine_holds_every_adapter_in_float32(tmp_path: Path) -> None:
    save_file({"a": np.zeros((8, 64), np.float16), "b": np.zeros((64, 8), np.float16)}, tmp_path / "a.safetensors")
    config = EngineConfig(model="m", lora_modules={"a": str(tmp_path), "b": str(tmp_path)})
    assert beside_bytes(config, shape()) == 2 * (8 * 64 + 64 * 8) * 4


@pytest.mark.parametrize(("name", "method"), [("draft", "draft_model"), ("medusa", "medusa"), ("eagle", "eagle")])
def test_what_hangs_on_the_demos_model_takes_what_its_files_hold(name: str, method: str) -> None:
    models = Path("workloads/demo/models")
    speculation = {"method": method, "num_speculative_tokens": 3, "model": str(models / name)}
    config = EngineConfig.model_validate({"model": "m", "speculative_config": speculation})
    draft = None if method == "medusa" else load_model_shape(models / name)
    stored = sum(math.prod(size) for size in tensor_shapes(models / name).values())
    assert beside_bytes(config, load_model_shape(models / "target"), draft) == 2 * stored


def test_what_does_not_fit_a_device_says_so() -> None:
    config = EngineConfig(model="m", max_model_len=512)
    assert device_memory(config, shape(), memory_gib=3).fits
    assert not device_memory(config, shape(), memory_gib=2).fits  # the reserve alone takes it
    assert device_memory(config, shape(), memory_gib=2).num_blocks < 0


def test_bytes_read_as_people_say_them() -> None:
    assert [plain_bytes(n) for n in (512, 3 * 2**20, 2**31)] == ["0.5 KiB", "3.0 MiB", "2.0 GiB"]
