"""Which configs fit which hardware, with the nearest that would."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.backend import FailureKind
from engine.config import EngineConfig
from engine.memory import device_memory
from engine.model_shape import ModelShape
from engine.simulator.fit import num_kv_blocks, sku_refusals
from search_spaces.skus import Sku, load_skus

LLAMA_70B = ModelShape.model_validate(
    {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "dtype": "bfloat16",
    }
)


def config(**fields: object) -> EngineConfig:
    return EngineConfig.model_validate({"model": "m", "max_model_len": 8192, **fields})


def sku(name: str) -> Sku:
    return load_skus()[name]


def test_a_70b_model_needs_two_h200_or_four_l40s() -> None:
    (refusal,) = sku_refusals(config(), LLAMA_70B, sku("h200"))
    assert refusal.kind is FailureKind.OUT_OF_MEMORY
    # 70.55 G parameters of 2 bytes are 131.4 GiB; 2 GiB reserve and 0.4 GiB for a step of 2048 tokens.
    assert "would hold 133.8 GiB" in refusal.reason
    assert "tensor_parallel_size 2 would fit" in refusal.reason
    assert sku_refusals(config(tensor_parallel_size=2), LLAMA_70B, sku("h200")) == []
    (refusal,) = sku_refusals(config(tensor_parallel_size=2), LLAMA_70B, sku("l40s"))
    assert "tensor_parallel_size 4 would fit" in refusal.reason


def test_a_cache_that_is_only_too_small_names_the_longest_sequence() -> None:
    long = config(max_model_len=131072, tensor_parallel_size=4)
    (refusal,) = sku_refusals(long, LLAMA_70B, sku("l40s"))
    assert "max_model_len" in refusal.reason.split("would fit")[-1]


def test_quantized_weights_fit_where_whole_ones_do_not() -> None:
    small = config(quantization={"weights": "int4_g128"})
    assert sku_refusals(small, LLAMA_70B, sku("h100_sxm")) == []


def test_heads_that_do_not_divide_and_unknown_memory_are_refused() -> None:
    (refusal,) = sku_refusals(config(tensor_parallel_size=3), LLAMA_70B, sku("h100_sxm"))
    assert "64 attention heads. Use 2" in refusal.reason
    (refusal,) = sku_refusals(config(), LLAMA_70B, sku("local"))
    assert "memory_gib" in refusal.reason


def test_a_cache_asked_for_bounds_the_blocks() -> None:
    wide = config(tensor_parallel_size=4)
    asked = config(tensor_parallel_size=4, kv_cache_memory_bytes=2**30)
    assert num_kv_blocks(asked, LLAMA_70B, sku("h100_sxm")) == pytest.approx(2**30 / (16 * 81920), abs=1)
    assert num_kv_blocks(wide, LLAMA_70B, sku("h100_sxm")) > 10_000


@given(split=st.sampled_from([1, 2, 4, 8]), length=st.integers(16, 131072), memory=st.floats(10, 300))
def test_what_is_not_refused_fits(split: int, length: int, memory: float) -> None:
    own = Sku(name="x", vendor="v", memory_gib=memory, usd_per_hour=1, as_of="now", source="me")
    candidate = config(tensor_parallel_size=split, max_model_len=length)
    fits = device_memory(candidate, LLAMA_70B, memory).fits
    assert fits == (not sku_refusals(candidate, LLAMA_70B, own))
    if fits:
        assert num_kv_blocks(candidate, LLAMA_70B, own) * 16 >= length


def test_a_split_over_several_machines_is_refused_with_one_that_a_machine_has() -> None:
    (refusal,) = sku_refusals(config(tensor_parallel_size=16), LLAMA_70B, sku("h100_sxm"))
    assert refusal.kind is FailureKind.UNSUPPORTED
    assert "needs 16 h100_sxm in one machine, which has 8. tensor_parallel_size 2 would fit" in refusal.reason
    wider = sku("h100_sxm").model_copy(update={"devices_per_node": 72})
    assert sku_refusals(config(tensor_parallel_size=16), LLAMA_70B, wider) == []


def test_what_fits_no_split_of_a_machine_is_told_the_number_format_that_does_or_that_none_does() -> None:
    huge = LLAMA_70B.model_copy(update={"num_hidden_layers": 320})
    (refusal,) = sku_refusals(config(tensor_parallel_size=8), huge, sku("l40s"))
    assert "quantization.weights int8 with tensor_parallel_size 8 would" in refusal.reason
    (refusal,) = sku_refusals(config(tensor_parallel_size=8), huge, sku("l4"))
    assert "not even with int4_g128 weights" in refusal.reason
