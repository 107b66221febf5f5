"""The decoder's numbers against transformers."""

from pathlib import Path

import pytest
import torch
from random_models import VOCAB_SIZE, reference, save_random_model

from engine.bundled.batch import Span
from engine.bundled.llm_engine import LLMEngine, SamplingParams
from engine.bundled.loader import load_model
from engine.bundled.paged_model import PagedModel
from engine.config import EngineConfig

pytestmark = pytest.mark.filterwarnings("ignore")


@torch.inference_mode()
def test_logits_are_those_of_transformers(family_folder: Path) -> None:
    token_ids = torch.arange(50).mul(13).remainder(VOCAB_SIZE)
    expected = reference(family_folder)(token_ids.unsqueeze(0)).logits[0]
    loaded = load_model(family_folder, dtype="float32", max_positions=None, device=torch.device("cpu"))
    paged = PagedModel(loaded, num_blocks=16, block_size=4, max_short_query=1)
    table = list(range(15, 2, -1))  # pages in no particular order
    first = paged.forward([Span(token_ids[:30].tolist(), 0, table)])
    second = paged.forward([Span(token_ids[30:].tolist(), 30, table)])
    logits = paged.logits(torch.cat((first.hidden, second.hidden)))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=2e-4)


def test_greedy_tokens_are_those_of_transformers(family_folder: Path, prompts: list[list[int]]) -> None:
    model = reference(family_folder)
    engine = LLMEngine(EngineConfig(model=str(family_folder), block_size=4, num_threads=1), device="cpu")
    outputs = engine.generate(prompts, SamplingParams(max_tokens=24, temperature=0.0))
    for prompt, output in zip(prompts, outputs, strict=True):
        generated = model.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)
        assert output == generated[0, len(prompt) :].tolist()


def test_bfloat16_stays_near_float32(llama: Path, prompts: list[list[int]]) -> None:
    scores = []
    for dtype in ("float32", "bfloat16"):
        engine = LLMEngine(EngineConfig(model=str(llama), dtype=dtype, num_threads=1), device="cpu")
        engine.add_request("one", prompts[2], SamplingParams(max_tokens=1, prompt_logprobs=0))
        (output,) = engine.step()
        assert output.prompt_logprobs is not None
        scores.append(torch.tensor([s.logprob for s in output.prompt_logprobs if s is not None]))
    assert (scores[0] - scores[1]).abs().mean() < 0.15  # 3 layers of weights as wild as these; a trained model: 0.01


def test_the_dtype_auto_is_the_checkpoints(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "model")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"float32"', '"bfloat16"'))
    loaded = load_model(folder, dtype="auto", max_positions=None, device=torch.device("cpu"))
    assert loaded.dtype == loaded.decoder.embed_tokens.weight.dtype == torch.bfloat16
