import pytest

from engine.config import ConfigError, EngineConfig, SpeculativeConfig
from optimizer.candidate import known_fields, make_config, space_around
from search_spaces.errors import SearchSpaceError
from search_spaces.space import SearchSpace, load_search_space

BASE = EngineConfig(model="m")
BUNDLED = load_search_space("bundled").resolve({"draft": "d", "cores": 2}).space


def test_the_default_of_the_bundled_space_is_the_default_config() -> None:
    assert make_config(BASE, BUNDLED, BUNDLED.default_assignment) == BASE
    assert space_around(BUNDLED, BASE).fingerprint() != ""


def test_every_assignment_of_the_bundled_space_is_a_config_of_its_own() -> None:
    fingerprints = {make_config(BASE, BUNDLED, a).fingerprint() for a in BUNDLED.enumerate()}
    assert len(fingerprints) == BUNDLED.size()


def test_trial_0_is_the_users_base_even_off_the_grid() -> None:
    base = BASE.model_copy(
        update={
            "max_num_seqs": 24,
            "speculative_config": SpeculativeConfig(method="ngram", num_speculative_tokens=5, prompt_lookup_max=3),
        }
    )
    space = space_around(BUNDLED, base)
    assert make_config(base, space, space.default_assignment) == base


def test_another_speculation_method_leaves_nothing_of_the_bases() -> None:
    base = BASE.model_copy(
        update={"speculative_config": SpeculativeConfig(method="draft_model", num_speculative_tokens=4, model="d")}
    )
    space = space_around(BUNDLED, base)
    ngram = {**BUNDLED.default_assignment, "speculation": "ngram", "ngram_tokens": 8, "ngram_lookup": 2}
    config = make_config(base, space, ngram)
    assert config.speculative_config == SpeculativeConfig(method="ngram", num_speculative_tokens=8, prompt_lookup_max=2)


def test_unknown_fields_of_a_space_are_refused() -> None:
    assert {"speculative_config", "speculative_config.method", "quantization.weights", "dtype"} <= known_fields()
    assert "quantization" not in known_fields()
    faulty = SearchSpace.model_validate({"name": "x", "parameters": {"quantization.weight": ["int8"]}})
    with pytest.raises(SearchSpaceError, match=r"Did you mean 'quantization\.weights'"):
        space_around(faulty, BASE)


def test_fields_that_do_not_go_together_are_a_config_error() -> None:
    space = SearchSpace.model_validate({"name": "x", "parameters": {"max_num_batched_tokens": [32]}})
    with pytest.raises(ConfigError, match=r"x max_num_batched_tokens=32.*smaller than max_num_seqs"):
        make_config(BASE, space, {"max_num_batched_tokens": 32})
