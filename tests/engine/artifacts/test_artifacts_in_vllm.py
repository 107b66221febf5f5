"""The real llm-compressor and the real vLLM: what we build loads there and answers as it should."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from vllm_process import vllm_answers, vllm_python

from engine.artifacts.provenance import read_provenance
from engine.artifacts.store import ArtifactStore
from engine.config import EngineConfig, Quantization
from engine.vllm_server.environment import VllmEnvironment
from optimizer.calibration import write_calibration
from workloads.parquet import read_workload
from workloads.tokenizer import TokenCounter
from workloads.workload import Workload

pytestmark = pytest.mark.vllm

DEMO = Path(__file__).parents[3] / "workloads" / "demo"
TARGET = DEMO / "models" / "target"
NUM_PROMPTS, MAX_TOKENS = 24, 48


@pytest.fixture(scope="module")
def workload() -> Workload:
    return read_workload(DEMO / "workload.parquet")


@pytest.fixture(scope="module")
def prompts(workload: Workload) -> list[list[int]]:
    """Token ids of requests of every task."""
    tokens = TokenCounter(TARGET)
    requests = list(workload)[:: len(workload) // NUM_PROMPTS][:NUM_PROMPTS]
    return [tokens.ids(tokens.chat_text(request.chat_messages())) for request in requests]


@pytest.fixture(scope="module")
def unquantized(prompts: list[list[int]], tmp_path_factory: pytest.TempPathFactory) -> list[list[int]]:
    vllm_python()
    answers = vllm_answers(TARGET, prompts, tmp_path_factory.mktemp("vllm"), max_tokens=MAX_TOKENS)
    return answers["token_ids"]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def store(workload: Workload, tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    if not os.environ.get("FOPT_QUANTIZER_PYTHON"):
        pytest.skip("FOPT_QUANTIZER_PYTHON does not name a Python with llm-compressor")
    folder = tmp_path_factory.mktemp("artifacts")
    rows = write_calibration(workload, folder / "rows.jsonl", num_rows=32)
    return ArtifactStore(folder / "store", calibration=rows)


def agreement(answers: list[list[int]], reference: list[list[int]]) -> float:
    """The part of the reference's tokens up to and including the first that differs, which are the same."""
    same = compared = 0
    for answer, expected in zip(answers, reference, strict=True):
        pairs = list(zip(answer, expected, strict=False))
        first = next((place for place, (mine, theirs) in enumerate(pairs) if mine != theirs), len(pairs))
        same, compared = same + first, compared + min(first + 1, len(pairs))
    return same / compared


# Lowest agreements are loose: they tell a wrong layout (nothing agrees) from rounding.
@pytest.mark.parametrize(
    ("quantization", "lowest"),
    [
        ({"weights": "int8", "activations": "int8"}, 0.98),
        ({"weights": "fp8", "activations": "fp8"}, 0.96),
        ({"weights": "int4_g128"}, 0.9),
        ({"weights": "int4_g64"}, 0.9),
        ({"weights": "int4_g32"}, 0.9),
        ({"weights": "int4_g128_asym"}, 0.9),
        ({"weights": "int8", "activations": "int8", "overrides": {"model.layers.[1-3].mlp.*": "int4_g64",
                                                                 "model.layers.5.*": "bf16"}}, 0.9),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)  # fmt: skip
def test_vllm_loads_what_the_store_builds(
    quantization: dict[str, Any],
    lowest: float,
    store: ArtifactStore,
    prompts: list[list[int]],
    unquantized: list[list[int]],
    tmp_path: Path,
) -> None:
    if "int4" in json.dumps(quantization) and not VllmEnvironment(vllm_python()).known_options.has_int4:
        pytest.skip("vLLM's CPU build has no kernel for 4-bit weights on this CPU: they need AVX-512")
    config = EngineConfig(model=str(TARGET), quantization=Quantization.model_validate(quantization))
    folder = store.checkpoint(config)
    provenance = read_provenance(folder)
    assert provenance is not None
    gptq = [group for group in provenance.ingredients.recipe.groups if group.method == "gptq"]
    assert bool(gptq) == ("int4" in json.dumps(quantization))
    answers = vllm_answers(folder, prompts, tmp_path, max_tokens=MAX_TOKENS)["token_ids"]
    assert agreement(answers, unquantized) >= lowest


@pytest.mark.parametrize(("method", "folder"), [("draft_model", "draft"), ("medusa", "medusa"), ("eagle", "eagle")])
def test_vllm_accepts_what_our_drafts_and_heads_propose(
    method: str, folder: str, prompts: list[list[int]], unquantized: list[list[int]], tmp_path: Path
) -> None:
    speculation = {"method": method, "model": str(DEMO / "models" / folder), "num_speculative_tokens": 3}
    told = vllm_answers(TARGET, prompts, tmp_path, max_tokens=MAX_TOKENS, speculative_config=speculation)
    assert told["accepted"] > 0.2 * told["drafted"] > 0
    assert agreement(told["token_ids"], unquantized) >= 0.98
