"""Folders in compressed-tensors layout: written here number by number, loaded, and compared with what they mean."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from random_models import VOCAB_SIZE, save_random_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.bundled.errors import CheckpointError, UnsupportedError
from engine.bundled.llm_engine import LLMEngine, SamplingParams
from engine.bundled.loader import load_model
from engine.bundled.quantization.fp8 import Fp8DynamicLinear
from engine.bundled.quantization.int8 import Int8DynamicLinear, Int8Linear
from engine.bundled.quantized_layers import unpack
from engine.bundled.stored_formats import stored_formats
from engine.config import EngineConfig

INT8 = {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True, "dynamic": False}
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True, "dynamic": False}
FP8 = INT8 | {"type": "float"}
PER_TOKEN = {"num_bits": 8, "type": "int", "strategy": "token", "symmetric": True, "dynamic": True}
SCHEMES: dict[str, tuple[str, dict[str, Any], dict[str, Any] | None]] = {
    "W8A8": ("int-quantized", INT8, PER_TOKEN),
    "W8A16": ("pack-quantized", INT8, None),
    "W4A16": ("pack-quantized", INT4, None),
    "W4A16_ASYM": ("pack-quantized", INT4 | {"symmetric": False}, None),
    "FP8_DYNAMIC": ("float-quantized", FP8, PER_TOKEN | {"type": "float"}),
    "FP8_TENSOR": ("float-quantized", FP8 | {"strategy": "tensor"}, None),
}


def quantization_config(scheme: str, **fields: Any) -> dict[str, Any]:
    layout, weights, activations = SCHEMES[scheme]
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
    config = {"quant_method": "compressed-tensors", "format": layout, "config_groups": {"group_0": group}}
    return {**config, "ignore": ["lm_head"], "quantization_status": "compressed", **fields}


def write_codes(codes: Tensor, num_bits: int) -> Tensor:
    """Codes [rows, columns] as int32, each with 32 / bits of them, lowest first; the last one filled with zeros."""
    per_word = 32 // num_bits
    words = []
    for row in codes.tolist():
        row += [0] * (-len(row) % per_word)
        pieces = [row[i : i + per_word] for i in range(0, len(row), per_word)]
        words.append([sum(code << num_bits * i for i, code in enumerate(piece)) for piece in pieces])
    return torch.tensor(words, dtype=torch.int64).to(torch.int32)


def quantized(weight: Tensor, scheme: str) -> tuple[dict[str, Tensor], Tensor]:
    """A module's stored tensors and the weight they stand for; scales are powers of two: nothing rounds twice."""
    layout, args, _ = SCHEMES[scheme]
    if args["num_bits"] == 4:
        groups = weight.view(len(weight), -1, 32)
        scales = torch.full(groups.shape[:2], 2.0**-5)
        zeros = torch.randint(-8, 8, scales.shape) if not args["symmetric"] else torch.zeros_like(scales).long()
        codes = (groups / scales.unsqueeze(-1) + zeros.unsqueeze(-1)).round().clamp(-8, 7)
        meant = ((codes - zeros.unsqueeze(-1)) * scales.unsqueeze(-1)).flatten(1)
        stored = {"weight_packed": write_codes(codes.flatten(1).long() + 8, 4), "weight_scale": scales}
        stored["weight_shape"] = torch.tensor(weight.shape)
        if not args["symmetric"]:
            stored["weight_zero_point"] = write_codes(zeros.t() + 8, 4).t().contiguous()
        return stored, meant
    scales = torch.full((1,) if args["strategy"] == "tensor" else (len(weight), 1), 2.0**-8)
    if args["type"] == "float":
        codes = (weight / scales).to(torch.float8_e4m3fn)
        return {"weight": codes, "weight_scale": scales}, codes.float() * scales
    codes = (weight / scales).round().clamp(-128, 127)
    if layout == "pack-quantized":
        packed = write_codes(codes.long() + 128, 8)
        stored = {"weight_packed": packed, "weight_shape": torch.tensor(weight.shape), "weight_scale": scales}
        return stored, codes * scales
    return {"weight": codes.to(torch.int8), "weight_scale": scales}, codes * scales


def save_quantized(folder: Path, scheme: str, family: str = "llama", **fields: Any) -> tuple[Path, Path]:
    """A quantized folder, and an unquantized one of the numbers it stands for."""
    plain = save_random_model(folder / "plain", family, initializer_range=0.1)
    stored: dict[str, Tensor] = {}
    meant: dict[str, Tensor] = {}
    torch.manual_seed(0)
    for name, tensor in load_file(plain / "model.safetensors").items():
        stored[name] = meant[name] = tensor
        if name.endswith("_proj.weight"):
            parts, meant[name] = quantized(stored.pop(name), scheme)
            stored |= {f"{name.removesuffix('.weight')}.{part}": value for part, value in parts.items()}
    other = folder / "quantized"
    other.mkdir()
    config = json.loads((plain / "config.json").read_text())
    config["quantization_config"] = quantization_config(scheme, **fields)
    (other / "config.json").write_text(json.dumps(config))
    save_file(stored, other / "model.safetensors", metadata={"format": "pt"})
    save_file(meant, plain / "model.safetensors", metadata={"format": "pt"})
    return other, plain


def logits(folder: Path, **fields: Any) -> Tensor:
    config = {"model": str(folder), "num_threads": 1, "block_size": 4, "max_num_seqs": 4} | fields
    engine = LLMEngine(EngineConfig.model_validate(config), device="cpu")
    prompt = [(13 * i + 5) % VOCAB_SIZE for i in range(40)]
    engine.add_request("one", prompt, SamplingParams(max_tokens=1, prompt_logprobs=VOCAB_SIZE))
    (output,) = engine.step()
    rows = [dict(score.top) for score in (output.prompt_logprobs or [])[1:] if score is not None]
    return torch.tensor([[row[i] for i in range(VOCAB_SIZE)] for row in rows])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_folder_holds_the_weights_it_stands_for(tmp_path: Path, scheme: str) -> None:
    quantized_folder, plain = save_quantized(tmp_path, scheme)
    device = torch.device("cpu")
    found, meant = (
        load_model(f, dtype="float32", max_positions=None, device=device).decoder for f in (quantized_folder, plain)
    )
    for name in ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"):
        layer = found.layers[1].get_submodule(name)
        assert torch.equal(layer.dequantized(), meant.layers[1].get_submodule(name).weight)


@pytest.mark.parametrize("enforce_eager", [False, True])
@pytest.mark.parametrize("scheme", [name for name, (_, _, activations) in SCHEMES.items() if not activations])
def test_it_computes_as_its_dequantized_weights_do(tmp_path: Path, scheme: str, enforce_eager: bool) -> None:
    folder, plain = save_quantized(tmp_path, scheme, "qwen2")
    found, expected = (logits(f, enforce_eager=enforce_eager) for f in (folder, plain))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("scheme", "layer"), [("W8A8", Int8DynamicLinear), ("FP8_DYNAMIC", Fp8DynamicLinear)])
def test_activations_are_rounded_as_the_folder_says(tmp_path: Path, scheme: str, layer: type) -> None:
    folder, plain = save_quantized(tmp_path, scheme)
    found, expected = logits(folder), logits(plain)
    far = (expected.exp() * (expected - found)).sum(-1).mean()
    assert 0 < far < 0.05
    decoder = load_model(folder, dtype="auto", max_positions=None, device=torch.device("cpu")).decoder
    assert type(decoder.layers[0].mlp.down_proj) is layer


def test_modules_are_named_ignored_and_mixed(tmp_path: Path) -> None:
    groups = {
        "group_0": {"targets": ["re:.*self_attn.*"], "weights": INT8, "input_activations": PER_TOKEN},
        "group_1": {"targets": ["Linear"], "weights": INT4},
        "group_2": {"targets": ["model.layers.1.mlp.down_proj"], "weights": FP8},
    }
    config = quantization_config("W8A8", config_groups=groups, format="mixed-precision")
    config["ignore"] = ["lm_head", "re:.*layers.0.mlp.*"]
    found = stored_formats(tmp_path, config, 2)
    assert found["model.layers.1.self_attn.q_proj"] == ("int8", "int8")
    assert found["model.layers.1.mlp.gate_proj"] == ("int4_g32", "bf16")
    assert found["model.layers.1.mlp.down_proj"] == ("fp8", "bf16")
    assert not any("layers.0.mlp" in name for name in found)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"quant_method": "gptq"}, "quant_method 'gptq' is not read, only compressed-tensors"),
        ({"format": "nvfp4-pack-quantized"}, "format 'nvfp4-pack-quantized' is not read"),
        ({"quantization_status": "frozen"}, "only compressed ones"),
        ({"kv_cache_scheme": {"num_bits": 8}}, "has a kv_cache_scheme"),
        ({"ignore": []}, "the output head is quantized"),
        ({"weights": INT4 | {"group_size": 256}}, r"weights int4 per group of 256 static .* groups of 32, 64 or 128"),
        ({"weights": INT4 | {"actorder": "group"}}, "actorder group"),
        ({"weights": INT4 | {"strategy": "channel", "group_size": None}}, "weights int4 per channel static"),
        ({"weights": INT4, "input_activations": PER_TOKEN}, "with activations int8 per token dynamic"),
        ({"weights": FP8, "input_activations": PER_TOKEN | {"dynamic": False}}, "activations int8 per token static"),
        ({"weights": FP8 | {"strategy": "block"}}, "float8 per block"),
    ],
)
def test_what_is_not_computed_is_refused_with_a_sentence(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    config = quantization_config("W4A16")
    group = config["config_groups"]["group_0"]
    group |= {key: fields.pop(key) for key in ("weights", "input_activations") if key in fields}
    with pytest.raises(CheckpointError, match=words):
        stored_formats(tmp_path, config | fields, 2)


def test_a_quantized_folder_is_not_quantized_again_but_its_cache_may_be(tmp_path: Path) -> None:
    folder, _ = save_quantized(tmp_path, "W8A16")
    with pytest.raises(UnsupportedError, match="already quantized"):
        logits(folder, quantization={"weights": "int4_g32"})
    plain, small = logits(folder), logits(folder, quantization={"kv_cache": "int8"})
    assert 0 < (plain - small).abs().max() < 1


def test_tensors_of_another_type_or_shape_are_refused(tmp_path: Path) -> None:
    folder, _ = save_quantized(tmp_path, "W8A8")
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    for wrong, words in ((tensors[name].float(), "is torch.float32"), (tensors[name][:, :32], "have shape")):
        save_file(tensors | {name: wrong.contiguous()}, folder / "model.safetensors")
        with pytest.raises(CheckpointError, match=words):
            logits(folder)


def test_unpacking_keeps_the_sign_bit() -> None:
    assert unpack(torch.tensor([[-1], [0x76543210]], dtype=torch.int32), 4, 8).tolist() == [[15] * 8, [*range(8)]]


def test_resident_weights_of_a_quantized_folder_are_shared(tmp_path: Path) -> None:
    from engine.bundled.resident import with_shared_tensors

    folder, _ = save_quantized(tmp_path, "W8A8")
    decoder = load_model(folder, dtype="auto", max_positions=None, device=torch.device("cpu")).decoder
    mine, other = (d.layers[0].mlp.down_proj for d in (decoder, with_shared_tensors(decoder)))
    assert isinstance(other, Int8Linear)
    assert mine is not other
    assert mine.weight is other.weight
