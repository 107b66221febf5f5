"""The engine on a GPU says what it says on the CPU: eager, with graphs, speculating, and in every number format."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from random_models import save_random_model

from engine.bundled.llm_engine import LLMEngine, SamplingParams
from engine.bundled.paged_model import PagedModel
from engine.config import EngineConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
GREEDY = SamplingParams(max_tokens=32, temperature=0.0)
MakeEngine = Callable[..., LLMEngine]


@pytest.fixture
def make_on_cuda(llama: Path) -> MakeEngine:
    def make(folder: Path = llama, **fields: Any) -> LLMEngine:
        values = {"model": str(folder), "block_size": 16, "max_num_seqs": 8, "dtype": "float32", "max_model_len": 128}
        return LLMEngine(EngineConfig.model_validate(values | fields), device="cuda")

    return make


@pytest.mark.parametrize("enforce_eager", [True, False])
def test_every_family_says_what_it_says_on_the_cpu(
    make_on_cuda: MakeEngine, family_folder: Path, prompts: list[list[int]], enforce_eager: bool
) -> None:
    config = {"model": str(family_folder), "dtype": "float32", "max_model_len": 128, "enforce_eager": True}
    on_cpu = LLMEngine(EngineConfig.model_validate(config), device="cpu").generate(prompts, GREEDY)
    assert make_on_cuda(family_folder, enforce_eager=enforce_eager).generate(prompts, GREEDY) == on_cpu


def test_decode_steps_are_graphs(make_on_cuda: MakeEngine) -> None:
    assert not isinstance(make_on_cuda().runner.model, PagedModel)


@pytest.mark.parametrize("num_speculative_tokens", [4, "auto"])
@pytest.mark.parametrize("method", ["ngram", "suffix", "draft_model"])
def test_speculation_changes_no_greedy_token(
    make_on_cuda: MakeEngine,
    llama_draft: Path,
    prompts: list[list[int]],
    method: str,
    num_speculative_tokens: int | str,
) -> None:
    plain = make_on_cuda().generate(prompts, GREEDY)
    own: dict[str, Any] = {"method": method, "num_speculative_tokens": num_speculative_tokens}
    if method == "draft_model":
        own["model"] = str(llama_draft)
    assert make_on_cuda(speculative_config=own).generate(prompts, GREEDY) == plain


@pytest.mark.parametrize("kv_cache", ["int8", "fp8"])
def test_stored_keys_are_read_by_the_kernel_as_gathered(
    make_on_cuda: MakeEngine, prompts: list[list[int]], kv_cache: str
) -> None:
    config = {"quantization": {"kv_cache": kv_cache}}
    graphed = make_on_cuda(**config).generate(prompts, GREEDY)
    assert graphed == make_on_cuda(**config, enforce_eager=True).generate(prompts, GREEDY)


@pytest.mark.parametrize("weights", ["int8", "int4_g32", "int4_g32_asym", "fp8"])
def test_weight_formats_answer_and_graphs_change_nothing(
    make_on_cuda: MakeEngine, prompts: list[list[int]], tmp_path: Path, weights: str
) -> None:
    wide = save_random_model(tmp_path / "wide", hidden_size=128, intermediate_size=256)  # sizes that kernels take
    config = {"quantization": {"weights": weights}, "dtype": "bfloat16"}
    graphed = make_on_cuda(wide, **config).generate(prompts, GREEDY)
    assert [len(answer) for answer in graphed] == [32] * len(prompts)
    assert graphed == make_on_cuda(wide, **config, enforce_eager=True).generate(prompts, GREEDY)
