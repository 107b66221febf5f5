"""The weight formats under their contract, and in a model."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from quantization_contract import QuantizationContract
from torch import Tensor, nn

from engine.bundled.errors import UnsupportedError
from engine.bundled.layer_formats import WEIGHT_FORMATS
from engine.bundled.llm_engine import LLMEngine, SamplingParams
from engine.bundled.quantization import TRANSFORMS
from engine.bundled.quantization.fp8 import Fp8DynamicLinear, Fp8Linear
from engine.bundled.quantization.int4 import Int4Linear
from engine.bundled.quantization.int8 import Int8DynamicLinear, Int8Linear, padded_int8_product
from engine.bundled.quantization.rows import fp8_rows, int8_rows, to_fp8

MakeEngine = Callable[..., LLMEngine]


class TestInt8(QuantizationContract):
    def quantize(self, linear: nn.Linear) -> nn.Module:
        return Int8Linear.quantize(linear)

    def max_weight_error(self, weight: Tensor) -> Tensor:
        return weight.abs().amax(1, keepdim=True) / 127 / 2


class TestInt8WithInt8Activations(TestInt8):
    def quantize(self, linear: nn.Linear) -> nn.Module:
        return Int8DynamicLinear.quantize(linear)

    def rounded(self, x: Tensor) -> Tensor:
        rows = int8_rows(x)
        assert (rows.codes.abs().amax(-1) == 127).all(), "every row uses the whole range"
        assert ((rows.codes * rows.scales - x).abs() <= 0.51 * rows.scales).all()
        return rows.codes * rows.scales


class TestFp8(QuantizationContract):
    def quantize(self, linear: nn.Linear) -> nn.Module:
        return Fp8Linear.quantize(linear)

    def max_weight_error(self, weight: Tensor) -> Tensor:
        scale = weight.abs().amax(1, keepdim=True) / 448
        return torch.maximum(weight.abs() * 2**-4, scale * 2**-10)


class TestFp8WithFp8Activations(TestFp8):
    def quantize(self, linear: nn.Linear) -> nn.Module:
        return Fp8DynamicLinear.quantize(linear)

    def rounded(self, x: Tensor) -> Tensor:
        rows = fp8_rows(x)
        return rows.codes.float() * rows.scales


class Int4Contract(QuantizationContract):
    group_size = 32
    symmetric = True

    def quantize(self, linear: nn.Linear) -> nn.Module:
        return Int4Linear.quantize(linear, group_size=self.group_size, symmetric=self.symmetric)

    def max_weight_error(self, weight: Tensor) -> Tensor:
        groups = weight.view(weight.shape[0], -1, self.group_size)
        low, high = (bound.unsqueeze(-1) for bound in groups.aminmax(dim=-1))
        scale = 2 * torch.maximum(high, -low) / 15 if self.symmetric else (high.clamp_min(0) - low.clamp_max(0)) / 15
        halves = 1 if self.symmetric else 2  # a rounded zero point may cut an end of the range off
        return (halves * scale / 2).expand(groups.shape).flatten(1)


class TestInt4Group32(Int4Contract):
    group_size = 32


class TestInt4Group64(Int4Contract):
    group_size = 64


class TestInt4Group128(Int4Contract):
    group_size = 128


class TestInt4Group32Asymmetric(Int4Contract):
    symmetric = False


class TestInt4Group128Asymmetric(Int4Contract):
    group_size = 128
    symmetric = False


def test_every_format_of_the_engine_has_its_transform() -> None:
    weights = {form.weights for form in TRANSFORMS}
    assert weights == set(WEIGHT_FORMATS) - {"bf16"}


def test_a_zero_point_serves_lopsided_weights() -> None:
    """All weights of a group within 3 +- 1: the asymmetric step is 4 / 15, the symmetric one 8 / 15."""
    linear = nn.Linear(32, 8, bias=False).requires_grad_(False)
    linear.weight.copy_(torch.linspace(2, 4, 256).view(8, 32).fmod(2) + 2)
    errors = []
    for symmetric in (True, False):
        quantized = Int4Linear.quantize(linear, group_size=32, symmetric=symmetric)
        errors.append((quantized.dequantized() - linear.weight).abs().mean())
    assert errors[1] < 0.7 * errors[0]


@given(x=arrays(np.float32, 64, elements=st.floats(-1e4, 1e4, width=32)))
def test_fp8_is_rounded_as_torch_rounds_and_saturates(x: np.ndarray) -> None:
    expected = torch.from_numpy(x).clamp(-448, 448).to(torch.float8_e4m3fn).float()
    assert torch.equal(to_fp8(torch.from_numpy(x)).float(), expected)
    assert expected.abs().max() <= 448


def test_padding_for_the_gpus_kernel_changes_no_product() -> None:
    a, b = (torch.randint(-128, 128, (rows, 37), dtype=torch.int8) for rows in (3, 11))
    assert torch.equal(padded_int8_product(a, b), a.int() @ b.int().t())


def test_the_native_fp8_product_is_the_widened_one() -> None:
    """Torch emulates the GPU's kernel on a CPU."""
    linear = nn.Linear(64, 48, bias=False).to(torch.bfloat16).requires_grad_(False)
    quantized = Fp8DynamicLinear.quantize(linear)
    rows = fp8_rows(torch.randn(5, 64))
    expected = (rows.codes.float() * rows.scales) @ quantized.dequantized().float().t()
    assert (quantized.native_product(rows) - expected).abs().max() <= 0.02 * expected.abs().max()


def test_groups_that_do_not_divide_a_layer_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="groups of 64"):
        Int4Linear.quantize(nn.Linear(96, 8), group_size=64, symmetric=True)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fewer_bits_move_the_model_further(make_engine: MakeEngine, prompts: list[list[int]], dtype: str) -> None:
    """Mean KL from the unquantized model, teacher-forced: int8 well below fp8, that below int4."""
    scores = {}
    for weights in ("bf16", "int8", "fp8", "int4_g32"):
        engine = make_engine(dtype=dtype, quantization={"weights": weights})
        engine.add_request("one", prompts[2], SamplingParams(max_tokens=1, prompt_logprobs=97))
        (output,) = engine.step()
        full = [dict(score.top) for score in (output.prompt_logprobs or [])[1:] if score is not None]
        scores[weights] = torch.tensor([[row[i] for i in range(97)] for row in full])
    reference = scores["bf16"]
    kl = {w: (reference.exp() * (reference - s)).sum(-1).mean().item() for w, s in scores.items() if w != "bf16"}
    assert 0 < kl["int8"] < 0.5 * kl["fp8"] < 0.5 * kl["int4_g32"]
