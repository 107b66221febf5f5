"""Padding and buffers of graphs: replayed by running them again, which needs no CUDA but Triton's interpreter."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("no CUDA, and TRITON_INTERPRET=1 is not set", allow_module_level=True)

from engine.bundled.graphed_model import GraphedModel  # noqa: E402
from engine.bundled.llm_engine import LLMEngine, SamplingParams  # noqa: E402
from engine.bundled.loader import load_model  # noqa: E402
from engine.bundled.paged_model import PagedModel  # noqa: E402

GREEDY = SamplingParams(max_tokens=6, temperature=0.0)


def graphed(engine: LLMEngine, folder: Path, lengths: list[int]) -> LLMEngine:
    """The engine with its network replaced; a graph is run anew each time."""
    paged = PagedModel(
        load_model(folder, dtype="float32", device=torch.device("cpu"), max_positions=engine.max_model_len),
        num_blocks=engine.num_blocks + 1,
        block_size=engine.config.block_size,
        max_short_query=lengths[-1],
        kv_format=engine.config.quantization.kv_cache,
        attention="triton",
    )
    engine.runner.model = GraphedModel(
        paged, max_num_seqs=8, max_model_len=engine.max_model_len, lengths=lengths, capture=lambda run: run
    )
    return engine


@pytest.mark.parametrize(
    ("fields", "lengths"),
    [
        ({}, [1]),
        ({"quantization": {"kv_cache": "int8"}}, [1]),
        ({"speculative_config": {"method": "ngram", "num_speculative_tokens": 4}}, [1, 5]),
        ({"max_num_seqs": 3, "max_num_batched_tokens": 16}, [1, 5]),
    ],
    ids=str,
)
def test_padded_steps_say_what_eager_ones_say(
    make_engine: Callable[..., LLMEngine],
    llama: Path,
    prompts: list[list[int]],
    fields: dict[str, Any],
    lengths: list[int],
) -> None:
    own = {"dtype": "float32", "enforce_eager": True, "max_model_len": 64} | fields
    plain = make_engine(**own).generate(prompts, GREEDY)
    assert graphed(make_engine(**own), llama, lengths).generate(prompts, GREEDY) == plain
