"""The weight formats under their contract, and in a model."""

from collections.abc import Callable

import pytest
import torch
from quantization_contract import QuantizationContract
from torch import Tensor, nn

from engine.bundled.errors import UnsupportedError
from engine.bundled.llm_engine import LLMEngine, SamplingParams
from engine.bundled.quantization.int4 import Int4Linear
from engine.bundled.quantization.int8 import Int8Linear

MakeEngine = Callable[..., LLMEngine]


class TestInt8(QuantizationContract):
    def quantize(self, linear: nn.Linear) -> nn.Module:
        return Int8Linear(linear)

    def max_weight_error(self, weight: Tensor) -> Tensor:
        return weight.abs().amax(1, keepdim=True) / 127 / 2


class Int4Contract(QuantizationContract):
    group_size: int

    def quantize(self, linear: nn.Linear) -> nn.Module:
        return Int4Linear(linear, self.group_size)

    def max_weight_error(self, weight: Tensor) -> Tensor:
        low, high = weight.view(weight.shape[0], -1, self.group_size).aminmax(dim=-1)
        return ((high - low) / 15 / 2).repeat_interleave(self.group_size, -1)


class TestInt4Group32(Int4Contract):
    group_size = 32


class TestInt4Group64(Int4Contract):
    group_size = 64


class TestInt4Group128(Int4Contract):
    group_size = 128


def test_groups_that_do_not_divide_a_layer_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="groups of 64"):
        Int4Linear(nn.Linear(96, 8), 64)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fewer_bits_move_the_model_further(make_engine: MakeEngine, prompts: list[list[int]], dtype: str) -> None:
    """Mean KL from the unquantized model, teacher-forced: int8 well below int4."""
    scores = {}
    for weights in ("bf16", "int8", "int4_g32"):
        engine = make_engine(dtype=dtype, quantization={"weights": weights})
        engine.add_request("one", prompts[2], SamplingParams(max_tokens=1, prompt_logprobs=97))
        (output,) = engine.step()
        full = [dict(score.top) for score in (output.prompt_logprobs or [])[1:] if score is not None]
        scores[weights] = torch.tensor([[row[i] for i in range(97)] for row in full])
    reference = scores["bf16"]
    kl = {w: (reference.exp() * (reference - s)).sum(-1).mean().item() for w, s in scores.items() if w != "bf16"}
    assert 0 < kl["int8"] < 0.2 * kl["int4_g32"]


@pytest.mark.parametrize("weights", ["int8", "int4_g32"])
def test_a_quantized_model_decodes_batched_as_alone(
    make_engine: MakeEngine, prompts: list[list[int]], weights: str
) -> None:
    engine = make_engine(quantization={"weights": weights}, enable_prefix_caching=False)
    params = SamplingParams(max_tokens=16, temperature=0.0)
    together = engine.generate(prompts, params)
    assert together == [engine.generate([prompt], params)[0] for prompt in prompts]
