"""Every number format with every other technique: greedy answers are those of the format alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.bundled.llm_engine import LLMEngine, SamplingParams

MakeEngine = Callable[..., LLMEngine]
FORMATS: dict[str, dict[str, Any]] = {
    "int8 activations": {"weights": "int8", "activations": "int8"},
    "int4": {"weights": "int4_g32"},
    "int4 asymmetric": {"weights": "int4_g32_asym"},
    "fp8": {"weights": "fp8"},
    "fp8 activations": {"weights": "fp8", "activations": "fp8"},
    "int8 cache": {"kv_cache": "int8"},
    "fp8 cache": {"kv_cache": "fp8"},
    "mixed": {"weights": "int8", "overrides": {"*.down_proj": "bf16", "model.layers.0.*": "int4_g32"}},
    "all in int8": {"weights": "int8", "activations": "int8", "kv_cache": "int8"},
}
TECHNIQUES = ["ngram", "draft_model", "medusa", "eagle", "batch of one", "no prefix cache", "chunks"]


@pytest.fixture
def technique(request: pytest.FixtureRequest, llama_draft: Path, medusa_heads: Path, eagle_head: Path) -> Any:
    """Fields of one technique; `batch of one` is the way it is asked."""
    folders = {"draft_model": llama_draft, "medusa": medusa_heads, "eagle": eagle_head}
    if request.param in ("ngram", *folders):
        speculation = {"method": request.param, "num_speculative_tokens": 3}
        folder = folders.get(request.param)
        return {"speculative_config": speculation | ({"model": str(folder)} if folder else {})}
    return {"no prefix cache": {"enable_prefix_caching": False}, "chunks": {"max_num_batched_tokens": 16}}.get(
        request.param, {}
    )


@pytest.mark.parametrize("technique", TECHNIQUES, indirect=True)
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("eager", [False, True])
def test_greedy_answers_do_not_depend_on_it(
    make_engine: MakeEngine, prompts: list[list[int]], technique: dict[str, Any], name: str, eager: bool
) -> None:
    fields = {"quantization": FORMATS[name], "enforce_eager": eager}
    params = SamplingParams(max_tokens=12 if eager else 32, temperature=0.0)
    asked = prompts[2:] if eager else prompts
    expected = make_engine(**fields).generate(asked, params)
    engine = make_engine(**fields, **technique)
    found = engine.generate(asked, params) if technique else [engine.generate([p], params)[0] for p in asked]
    assert found == expected
    if "speculative_config" in technique:
        always = (
            technique["speculative_config"]["method"] != "ngram"
        )  # that drafts only where answers repeat themselves
        assert engine.counters().num_draft_tokens > 0 or (eager and not always)
        assert engine.generate(asked, params) == expected, "over shared prefixes"
