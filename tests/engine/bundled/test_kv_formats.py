"""The formats of the KV cache under their contract, and in an engine."""

from collections.abc import Callable

import pytest
import torch
from kv_format_contract import KVFormatContract
from torch import Tensor

from engine.bundled.kv_formats import KV_FORMATS
from engine.bundled.llm_engine import LLMEngine, SamplingParams

MakeEngine = Callable[..., LLMEngine]
GREEDY = SamplingParams(max_tokens=24, temperature=0.0)


class TestAsComputed(KVFormatContract):
    name = "bf16"
    bytes_per_head = 16 * 4

    def max_error(self, heads: Tensor) -> Tensor:
        return torch.zeros_like(heads)


class TestInt8(KVFormatContract):
    name = "int8"
    bytes_per_head = 16 + 4

    def max_error(self, heads: Tensor) -> Tensor:
        return 0.501 * heads.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 127


class TestFp8(KVFormatContract):
    name = "fp8"
    bytes_per_head = 16

    def max_error(self, heads: Tensor) -> Tensor:
        beyond = (heads.abs() - 448).clamp_min(0)
        return torch.maximum((heads.abs() * 2**-4).clamp_min(2**-10), beyond)


def test_fp8_saturates() -> None:
    form = KV_FORMATS["fp8"]
    assert form.decode(form.encode(torch.tensor([1e6, -1e6, 449.0])), torch.float32).tolist() == [448, -448, 448]


@pytest.mark.parametrize("enforce_eager", [False, True])
@pytest.mark.parametrize("kv_cache", ["int8", "fp8"])
def test_smaller_numbers_leave_room_for_more_blocks(
    make_engine: MakeEngine, kv_cache: str, enforce_eager: bool
) -> None:
    memory = {"kv_cache_memory_bytes": 1 << 20, "max_model_len": 128, "enforce_eager": enforce_eager}
    plain = make_engine(**memory)
    small = make_engine(**memory, quantization={"kv_cache": kv_cache})
    assert small.num_blocks >= (3.1 if kv_cache == "int8" else 4) * plain.num_blocks  # 64 bytes a head to 20 or 16


@pytest.mark.parametrize("enforce_eager", [False, True])
@pytest.mark.parametrize("kv_cache", ["int8", "fp8"])
def test_pieces_shared_prefixes_and_preemption_change_no_token(
    make_engine: MakeEngine, prompts: list[list[int]], kv_cache: str, enforce_eager: bool
) -> None:
    """Attention reads stored numbers alone, so it does not matter which step wrote them."""
    fields = {"quantization": {"kv_cache": kv_cache}, "enforce_eager": enforce_eager}
    whole = make_engine(**fields, enable_prefix_caching=False).generate(prompts, GREEDY)
    assert make_engine(**fields, max_num_batched_tokens=16).generate(prompts, GREEDY) == whole
    sharing = make_engine(**fields)
    assert [sharing.generate(prompts, GREEDY) for _ in range(2)] == [whole, whole]
    assert sharing.counters().prefix_cache_hits > 0
    tight = 32 * 4 * 3 * 2 * 2 * (20 if kv_cache == "int8" else 16)  # 32 blocks of 4 tokens
    preempting = make_engine(**fields, kv_cache_memory_bytes=tight, max_model_len=128)
    assert preempting.generate(prompts, GREEDY) == whole
    assert preempting.counters().num_preemptions > 0
    preempting.block_manager.check_integrity([])


@pytest.mark.parametrize("kv_cache", ["int8", "fp8"])
def test_a_cache_in_eight_bits_moves_the_model_a_little(
    make_engine: MakeEngine, prompts: list[list[int]], kv_cache: str
) -> None:
    scores = []
    for form in ("bf16", kv_cache):
        engine = make_engine(quantization={"kv_cache": form})
        engine.add_request("one", prompts[2], SamplingParams(max_tokens=1, prompt_logprobs=97))
        (output,) = engine.step()
        full = [dict(score.top) for score in (output.prompt_logprobs or [])[1:] if score is not None]
        scores.append(torch.tensor([[row[i] for i in range(97)] for row in full]))
    kl = (scores[0].exp() * (scores[0] - scores[1])).sum(-1).mean()
    assert 0 < kl < (0.02 if kv_cache == "int8" else 0.2)
