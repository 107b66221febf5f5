"""The compiled decoder's numbers against the eager one's, and their independence of the batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from random_models import VOCAB_SIZE, save_random_model

from engine.bundled.batch import Span
from engine.bundled.fused.fused_model import FusedModel
from engine.bundled.fused.library import UnavailableError, load_library
from engine.bundled.layer_formats import layer_formats
from engine.bundled.llm_engine import LLMEngine, SamplingParams
from engine.bundled.loader import load_model
from engine.bundled.paged_model import Model, PagedModel
from engine.bundled.quantization import quantize
from engine.config import EngineConfig, Quantization

CPU = torch.device("cpu")
TOKENS = [(13 * i + 5) % VOCAB_SIZE for i in range(90)]


@pytest.fixture(autouse=True)
def compiled() -> None:
    try:
        load_library(torch.bfloat16)
    except UnavailableError as reason:
        pytest.skip(str(reason))


def models(
    folder: Path, *, dtype: str = "float32", quantization: dict[str, Any] | None = None, block_size: int = 4
) -> tuple[Model, Model]:
    loaded = load_model(folder, dtype=dtype, max_positions=None, device=CPU)
    asked = Quantization.model_validate(quantization or {})
    quantize(loaded.decoder, layer_formats(asked, {}, loaded.config.num_layers))
    pages = {"num_blocks": 32, "block_size": block_size, "kv_format": asked.kv_cache}
    fused = FusedModel(loaded, max_positions=256, **pages)
    return PagedModel(loaded, max_short_query=3, **pages), fused


@torch.inference_mode()
def run(model: Model) -> torch.Tensor:
    """Logits of a prefill, its continuation beside another prefill, and two short steps."""
    mine, theirs = list(range(31, 7, -1)), list(range(8))
    hidden = [
        model.forward([Span(TOKENS[:30], 0, mine)]).hidden,
        model.forward([Span(TOKENS[30:57], 30, mine), Span(TOKENS[5:22], 0, theirs)]).hidden,
        model.forward([Span(TOKENS[57:58], 57, mine), Span(TOKENS[22:25], 17, theirs)]).hidden,
        model.forward([Span(TOKENS[58:59], 58, mine)]).hidden,
    ]
    return model.logits(torch.cat(hidden))


@pytest.mark.parametrize("block_size", [4, 16, 20])
def test_the_logits_are_the_eager_ones_for_every_family(family_folder: Path, block_size: int) -> None:
    eager, fused = models(family_folder, block_size=block_size)
    torch.testing.assert_close(run(fused), run(eager), rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_logits_do_not_depend_on_the_number_of_threads(llama: Path, threads: int) -> None:
    before = torch.get_num_threads()
    expected = run(models(llama)[1])
    try:
        torch.set_num_threads(threads)
        assert torch.equal(run(models(llama)[1]), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("weights", ["bf16", "int8", "int4_g32", "int4_g32_asym", "fp8"])
def test_every_weight_format_is_the_eager_one(tmp_path: Path, dtype: str, weights: str) -> None:
    folder = save_random_model(tmp_path / "tame", initializer_range=0.08)
    eager, fused = (run(model) for model in models(folder, dtype=dtype, quantization={"weights": weights}))
    far = (fused - eager).abs().max() / eager.std()
    assert far < (1e-4 if dtype == "float32" else 0.12)  # bf16 rounds after every operation when eager


ROUNDED = [  # formats that round what layers compute, where the last bit of a float decides between two codes
    {"weights": "int8", "activations": "int8"},
    {"weights": "fp8", "activations": "fp8"},
    {"kv_cache": "int8"},
    {"kv_cache": "fp8"},
]


@pytest.mark.parametrize("block_size", [4, 16, 20])
@pytest.mark.parametrize("quantization", ROUNDED, ids=str)
def test_rounding_activations_and_cache_is_the_eager_one_too(
    family_folder: Path, quantization: dict[str, str], block_size: int
) -> None:
    """Most logits agree to float32's last bits; the rest is far below what the format itself changes."""
    unquantized = run(models(family_folder, block_size=block_size)[1])
    eager, fused = (run(model) for model in models(family_folder, quantization=quantization, block_size=block_size))
    apart = (fused - eager).square().mean().sqrt()
    assert apart < 0.5 * (fused - unquantized).square().mean().sqrt()


def test_the_cpus_fp8_is_torchs(tmp_path: Path) -> None:
    """Values of every size through the cache: attention over one token gives them back."""
    folder = save_random_model(tmp_path / "wild", num_hidden_layers=1, initializer_range=1.0)
    both = models(folder, quantization={"kv_cache": "fp8"})
    eager, fused = (
        torch.cat([model.forward([Span([token], 0, [token % 32])]).hidden for token in range(97)]) for model in both
    )
    torch.testing.assert_close(fused, eager, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("quantization", [{}, {"weights": "int4_g32_asym", "kv_cache": "fp8"}, *ROUNDED], ids=str)
def test_a_sequence_says_bit_for_bit_the_same_alone_and_in_any_batch(
    llama: Path, prompts: list[list[int]], dtype: str, quantization: dict[str, str]
) -> None:
    config = {"model": str(llama), "dtype": dtype, "quantization": quantization, "num_threads": 2}
    engine = LLMEngine(EngineConfig.model_validate(config), device="cpu")
    params = SamplingParams(max_tokens=24, temperature=0.0)
    together = engine.generate(prompts, params)
    assert together == [engine.generate([prompt], params)[0] for prompt in prompts]


def test_greedy_speculation_in_bfloat16_says_what_plain_decoding_says(llama: Path, prompts: list[list[int]]) -> None:
    config = {"model": str(llama), "dtype": "bfloat16", "num_threads": 1}
    params = SamplingParams(max_tokens=32, temperature=0.0)
    plain = LLMEngine(EngineConfig.model_validate(config), device="cpu").generate(prompts, params)
    ngram = {"speculative_config": {"method": "ngram", "num_speculative_tokens": 4}}
    assert LLMEngine(EngineConfig.model_validate(config | ngram), device="cpu").generate(prompts, params) == plain


def test_an_eager_engine_answers_too_and_a_missing_compiler_is_said(
    llama: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prompts: list[list[int]]
) -> None:
    from engine.bundled.fused import library

    for cached in (library.load_library, library._compiled):
        cached.cache_clear()
    monkeypatch.setenv("CXX", str(tmp_path / "no-compiler"))
    with pytest.raises(UnavailableError, match="cannot be compiled"):
        load_library(torch.float32)
    engine = LLMEngine(EngineConfig(model=str(llama), num_threads=1), device="cpu")
    assert isinstance(engine.runner.model, PagedModel)
    assert len(engine.generate(prompts[:1], SamplingParams(max_tokens=3, temperature=0.0))[0]) == 3
    for cached in (library.load_library, library._compiled):
        cached.cache_clear()
