import numpy as np
import pytest

from engine.config import EngineConfig
from optimizer.suggest.beliefs import expected_effect
from optimizer.suggest.kernels import similarities, similarity_tables
from optimizer.suggest.pool import CandidatePool, assignment_key
from optimizer.suggest.probes import probes
from search_spaces.space import SearchSpace, load_search_space

BASE = EngineConfig(model="m")


@pytest.fixture(scope="module")
def bundled() -> CandidatePool:
    return CandidatePool(load_search_space("bundled").resolve({"draft": "d", "cores": 2}).space, BASE, seed=0)


def test_the_default_is_number_0_and_every_config_is_there_once(bundled: CandidatePool) -> None:
    assert bundled.configs[0] == BASE
    assert len(bundled) == len({config.fingerprint() for config in bundled.configs}) == bundled.space.size()
    assert bundled.index[assignment_key(bundled.assignments[17])] == 17


def test_assignments_that_make_no_config_and_those_that_mean_the_same_are_left_out() -> None:
    space = SearchSpace.model_validate(
        {"name": "x", "parameters": {"max_num_seqs": [64, 8], "max_num_batched_tokens": [2048, 32], "seed": [0]}}
    )
    pool = CandidatePool(space, BASE, seed=0)
    assert len(pool) == 3  # 64 sequences do not fit in 32 tokens
    assert not pool.accepts({"max_num_seqs": 64, "max_num_batched_tokens": 32, "seed": 0})


def test_codes_are_0_where_a_parameter_does_not_apply(bundled: CandidatePool) -> None:
    names = list(bundled.space.parameters)
    default = bundled.codes[0]
    assert default[names.index("draft_tokens")] == 0
    assert default[names.index("dtype")] == 1
    assert len(np.unique(bundled.codes, axis=0)) == len(bundled)


def test_similarities_are_covariances_with_ones_on_the_diagonal(bundled: CandidatePool) -> None:
    codes = bundled.codes[:: len(bundled) // 40]
    for matrix in similarities(similarity_tables(bundled.space), codes, codes):
        assert np.allclose(np.diag(matrix), 1)
        assert np.linalg.eigvalsh(matrix).min() > -1e-9


def test_probes_turn_on_one_technique_each_speculation_first(bundled: CandidatePool) -> None:
    assert probes(bundled) == [
        ("speculation", "draft_model"),
        ("speculation", "ngram"),
        ("speculation", "suffix"),
        ("max_num_seqs", 32),
        ("quantization.weights", "int8"),
        ("dtype", "float32"),
    ]


def test_beliefs_add_up_and_say_nothing_of_the_default() -> None:
    assert expected_effect(BASE, BASE) == (0, 0)
    narrow = BASE.model_copy(update={"max_num_seqs": 16, "num_threads": 1, "enable_prefix_caching": False})
    assert expected_effect(narrow, BASE) == pytest.approx((0.2 + 0.25, 0.2 + 0.3 + 2 * 0.05))
    back = expected_effect(BASE, narrow)
    assert back == pytest.approx((-0.45, -0.6))
