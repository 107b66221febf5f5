"""Which tree of guesses is drafted, where its tokens stand, and the heads that guess."""

from itertools import product

import numpy as np
import pytest
import torch
from draft_trees import TREES
from hypothesis import given
from hypothesis import strategies as st

from engine.bundled.fused.fused_heads import FusedHeads
from engine.bundled.fused.library import UnavailableError
from engine.bundled.head_loader import MedusaHeads
from engine.bundled.speculation.draft_tree import GuessRecord, choose_tree
from engine.bundled.token_tree import depths, paths


@given(parents=TREES)
def test_paths_lead_from_the_root_to_each_token(parents: tuple[int, ...]) -> None:
    for node, (path, depth) in enumerate(zip(paths(parents).tolist(), depths(parents), strict=True)):
        own = path[: depth + 1]
        assert own[-1] == node
        assert [parents[n] for n in own] == [-1, *own[:-1]]
        assert set(path[depth + 1 :]) <= {-1}


@given(
    shares=st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=1, max_size=4), size=st.integers(1, 24)
)
def test_no_other_tree_is_expected_to_keep_more(shares: list[list[float]], size: int) -> None:
    tree = choose_tree(shares, size)
    nodes = [tuple(tree.ranks[n] for n in path if n >= 0) for path in paths(tree.parents).tolist()]
    assert len(set(nodes)) == len(nodes), "no node twice"
    assert tree.depths == depths(tree.parents)

    def chance(node: tuple[int, ...]) -> float:
        return float(np.prod([shares[depth][rank] for depth, rank in enumerate(node)]))

    everything = [node for depth in range(1, len(shares) + 1) for node in product(range(4), repeat=depth)]
    best = sorted(map(chance, everything), reverse=True)
    assert sorted(map(chance, nodes), reverse=True) == pytest.approx(best[: min(size, len(everything))])
    paying = choose_tree(shares, size, min_chance=0.3)
    assert len(paying.parents) == max(1, sum(kept >= 0.3 for kept in best[:size]))
    likeliest = [max(range(4), key=own.__getitem__) for own in shares[: 1 + max(tree.depths)]]
    first = [node for node, parent in enumerate(tree.parents) if parent == node - 1 and tree.depths[node] == node]
    assert list(tree.ranks[: len(first)]) == likeliest[: len(first)], "the likeliest path comes first"


def test_heads_are_trusted_until_their_guesses_turn_out_otherwise() -> None:
    record = GuessRecord(2)
    probabilities = [[0.7, 0.2, 0.05], [0.5, 0.2, 0.1]]
    trusted = record.chances(probabilities)
    assert trusted == probabilities
    for number in range(400):
        record.add([[1, 2, 3], [4, 5, 6]], probabilities, [2 if number % 2 else 3])
    first, second = record.chances(probabilities)
    assert first == pytest.approx([0, 0.5, 0.5], abs=0.08)
    assert second == [0.5, 0.2, 0.1], "what came there is not known"
    record.reset()
    assert record.chances(probabilities) == probabilities


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("hidden_size", [64, 37])
def test_compiled_heads_are_the_eager_ones(dtype: torch.dtype, hidden_size: int) -> None:
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return (torch.randn(shape, generator=generator) / shape[-1] ** 0.5).to(dtype)

    blocks = [[random(hidden_size, hidden_size) for _ in range(2)] for _ in range(3)]
    heads = MedusaHeads(blocks, [random(150, hidden_size) for _ in range(3)])
    try:
        fused = FusedHeads(heads)
    except UnavailableError as reason:
        pytest.skip(str(reason))
    for rows, num_heads, num_ranks in ((1, 3, 1), (7, 2, 8), (2, 1, 150)):
        hidden = 3 * random(rows, hidden_size) * hidden_size**0.5
        found, expected = fused.best(hidden, num_heads, num_ranks), heads.best(hidden, num_heads, num_ranks)
        tolerance = 1e-5 if dtype == torch.float32 else 0.05  # eager bf16 rounds the logits too
        assert np.shape(found.token_ids) == (num_heads, rows, num_ranks)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=tolerance)
        if dtype == torch.float32:
            assert found.token_ids == expected.token_ids
        if num_ranks == 150:
            assert np.sum(found.probabilities, -1) == pytest.approx(1, abs=1e-5)
            assert sorted(found.token_ids[0][0]) == list(range(150))
