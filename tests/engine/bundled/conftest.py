"""Random models and prompts the engine's tests share; every model is built once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from random_models import (
    FAMILIES,
    VOCAB_SIZE,
    save_eagle_head,
    save_medusa_heads,
    save_perturbed,
    save_random_model,
)

from engine.bundled.llm_engine import LLMEngine, SamplingParams
from engine.config import EngineConfig

MakeEngine = Callable[..., LLMEngine]


@pytest.fixture(scope="session", params=FAMILIES)
def family_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder per family."""
    return save_random_model(tmp_path_factory.mktemp("family") / request.param, request.param)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def llama_draft(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Agrees with `llama` on roughly half of the tokens."""
    return save_perturbed(llama, tmp_path_factory.mktemp("models") / "draft", relative=0.05)


@pytest.fixture(scope="session")
def make_engine(llama: Path) -> MakeEngine:
    """An engine on `llama` with blocks of 4 tokens, any field overridden."""

    def make(**fields: Any) -> LLMEngine:
        values = {"model": str(llama), "block_size": 4, "max_num_seqs": 8, "num_threads": 1} | fields
        return LLMEngine(EngineConfig.model_validate(values), device="cpu")

    return make


@pytest.fixture(scope="session")
def prompts() -> list[list[int]]:
    """Prompts of many lengths; two share a prefix of 24 tokens, one repeats itself."""
    shared = [(7 * i + 3) % VOCAB_SIZE for i in range(24)]
    return [
        [5],
        [11, 12, 13, 14],
        [(i * i + 1) % VOCAB_SIZE for i in range(37)],
        [*shared, 1, 2, 3],
        [*shared, 90, 91],
        [20, 21, 22, 23, 24, 25] * 5,
    ]


@pytest.fixture(scope="session")
def plain(make_engine: MakeEngine, prompts: list[list[int]]) -> list[list[int]]:
    """What greedy decoding without speculation says, 32 tokens each."""
    return make_engine().generate(prompts, SamplingParams(max_tokens=32, temperature=0.0))


@pytest.fixture(scope="session")
def medusa_heads(
    llama: Path, prompts: list[list[int]], plain: list[list[int]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Eight heads that know some of what `llama` says."""
    said = [prompt + answer for prompt, answer in zip(prompts, plain, strict=True)]
    return save_medusa_heads(llama, tmp_path_factory.mktemp("heads") / "medusa", said, num_heads=8)


@pytest.fixture(scope="session")
def eagle_head(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head that is sometimes right about `llama`."""
    return save_eagle_head(
        llama, tmp_path_factory.mktemp("heads") / "eagle", layer=2, token_share=0.1, feature_share=1.0
    )
