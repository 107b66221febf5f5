"""vLLM's search spaces: their default is the engine's, what cannot be made is left out, and every option is known."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.vllm_options import vllm_options
from engine.vllm_server.known_options import KnownOptions
from optimizer.candidate import make_config, space_around, with_fixed
from search_spaces.space import load_search_space

OPTIONS = Path(__file__).parent.parent / "engine" / "vllm_server" / "options-0.32.0-cpu.json"
FOLDERS: dict[str, Any] = {name: name for name in ("draft", "medusa", "eagle", "eagle3", "suffix")}
FORMATS: dict[str, Any] = {name: name for name in ("int8", "int4_g128", "int4_g32", "nvfp4")}


@pytest.mark.parametrize("name", ["vllm", "vllm-cpu"])
def test_the_default_is_the_engines_own_with_the_fixed_fields(name: str) -> None:
    asked = load_search_space(name)
    base = with_fixed(EngineConfig(model="m", engine="vllm"), asked)
    space = space_around(asked.resolve({**FOLDERS, **FORMATS, "cores": 4}).space, base)
    assert make_config(base, space, space.default_assignment) == base
    assert base.enforce_eager is (name == "vllm-cpu")


@pytest.mark.parametrize("name", ["vllm", "vllm-cpu"])
def test_every_option_of_the_first_thousand_candidates_is_one_that_vllm_has(name: str) -> None:
    known = KnownOptions.model_validate_json(OPTIONS.read_text())
    known = known.model_copy(update={"modules": ("arctic_inference",)})
    asked = load_search_space(name)
    base = with_fixed(EngineConfig(model="m", engine="vllm"), asked)
    space = space_around(asked.resolve({**FOLDERS, **FORMATS, "cores": 4}).space, base)
    step = max(1, space.size() // 1000)
    for assignment in itertools.islice(space.enumerate(), 0, 20_000, min(step, 97)):
        options = vllm_options(make_config(base, space, assignment))
        assert known.refusals(options) == []


def test_without_drafts_and_checkpoints_what_needs_them_vanishes() -> None:
    resolution = load_search_space("vllm-cpu").resolve({"cores": 2})
    parameters = resolution.space.parameters
    assert parameters["weights"].values() == ("bf16",)
    assert parameters["speculation"].values() == ("none", "ngram")
    assert "head_tokens" not in parameters
    assert parameters["num_threads"].values() == (None, 1)
    assert any("weights: w8a8, w4a16, w4a16_g32 left out" in note for note in resolution.notes)
