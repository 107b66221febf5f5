"""`QuantizationContract`: what every weight format must keep. Subclass it and say how a layer is made."""

import pytest
import torch
from torch import Tensor, nn


class QuantizationContract:
    """Needs `quantize(linear)` and `max_weight_error(weight)`, an elementwise bound on |weight - dequantized|.

    Formats that round their inputs too say how (`rounded`).
    """

    def quantize(self, linear: nn.Linear) -> nn.Module:
        raise NotImplementedError

    def max_weight_error(self, weight: Tensor) -> Tensor:
        raise NotImplementedError

    def rounded(self, x: Tensor) -> Tensor:
        return x

    def layer(self, dtype: torch.dtype, *, bias: bool, in_features: int = 256, out_features: int = 160) -> nn.Linear:
        torch.manual_seed(in_features + out_features)
        return nn.Linear(in_features, out_features, bias=bias).to(dtype).requires_grad_(False)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_weights_are_within_the_bound(self, dtype: torch.dtype) -> None:
        linear = self.layer(dtype, bias=False)
        weight = linear.weight.float()
        error = (self.quantize(linear).dequantized().float() - weight).abs()
        slack = 0.02 * weight.abs().max() if dtype == torch.bfloat16 else 1e-6  # scales are kept in the dtype
        assert (error <= self.max_weight_error(weight) + slack).all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.parametrize("rows", [1, 3, 16, 17, 40])
    @pytest.mark.parametrize(("in_features", "out_features"), [(256, 160), (128, 7), (384, 64)])
    def test_outputs_are_those_of_the_dequantized_weight(
        self, dtype: torch.dtype, bias: bool, rows: int, in_features: int, out_features: int
    ) -> None:
        """Within 1e-5 (float32) or 2% (bfloat16) of the largest output, whichever kernel serves the shape."""
        linear = self.layer(dtype, bias=bias, in_features=in_features, out_features=out_features)
        quantized = self.quantize(linear)
        x = torch.randn(rows, in_features).to(dtype)
        expected = self.rounded(x).double() @ quantized.dequantized().double().t()
        if linear.bias is not None:
            expected += linear.bias.double()
        actual = quantized(x)
        assert actual.dtype == dtype
        bound = (1e-5 if dtype == torch.float32 else 0.02) * expected.abs().max()
        assert (actual.double() - expected).abs().max() <= bound

    def test_a_row_of_zeros_stays_zero(self) -> None:
        linear = self.layer(torch.float32, bias=False)
        linear.weight[0] = 0
        assert (self.quantize(linear).dequantized()[0] == 0).all()

    def test_less_memory_is_held(self) -> None:
        linear = self.layer(torch.float32, bias=False, in_features=1024, out_features=1024)
        held = sum(p.numel() * p.element_size() for p in self.quantize(linear).parameters())
        assert held <= 0.3 * linear.weight.numel() * 4
