"""Drawing: filters, random numbers and masks."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from engine.bundled.sampling import Stream, draw, draw_rows, mask_stop_tokens_, probabilities, uniforms
from engine.bundled.sampling_params import SamplingParams
from engine.bundled.sequence import Sequence

LOGITS = torch.log(torch.tensor([0.1, 0.4, 0.2, 0.3]))


def sequence(seed: int = 0, **params: object) -> Sequence:
    return Sequence("one", [1, 2], SamplingParams(**params), seed=seed, eos=(3,))  # type: ignore[arg-type]


def one_row(**params: object) -> torch.Tensor:
    return probabilities(LOGITS.unsqueeze(0), draw_rows([(sequence(**params), 2, 1)]))[0]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        ({"temperature": 0.0}, [0, 1, 0, 0]),
        ({"temperature": 0.5}, [0.01 / 0.30, 0.16 / 0.30, 0.04 / 0.30, 0.09 / 0.30]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_k": 9}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_p": 0.65}, [0, 4 / 7, 0, 3 / 7]),  # 0.4 is not enough, 0.7 is
        ({"top_p": 0.01}, [0, 1, 0, 0]),
        ({"top_k": 3, "top_p": 0.7}, [0, 4 / 7, 0, 3 / 7]),  # of 4/9, 3/9, 2/9 two reach 0.7
    ],
    ids=str,
)
def test_probabilities_after_filters(params: dict[str, object], expected: list[float]) -> None:
    torch.testing.assert_close(one_row(**params), torch.tensor(expected, dtype=torch.float32), atol=1e-6, rtol=1e-5)


def test_each_row_has_its_own_parameters() -> None:
    each = [{"temperature": 0.0}, {}, {"top_k": 1}, {"top_p": 0.65}]
    rows = draw_rows([(sequence(**params), 2, 1) for params in each])
    together = probabilities(LOGITS.expand(4, -1), rows)
    for row, params in zip(together, each, strict=True):
        torch.testing.assert_close(row, one_row(**params))


def test_drawing_follows_the_weights() -> None:
    count = 20_000
    rows = draw_rows([(sequence(seed=seed), 2, 1) for seed in range(count)])
    weights = torch.tensor([0.1, 0.0, 0.6, 0.3])
    seen = Counter(draw(weights.expand(count, -1), uniforms(rows, Stream.DRAW)).tolist())
    assert seen[1] == 0
    assert stats.chisquare([seen[0], seen[2], seen[3]], [2000, 12_000, 6000]).pvalue > 1e-4


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2.0**-32])
def test_a_token_of_weight_zero_is_never_drawn(uniform: float) -> None:
    weights = torch.tensor([[0.0, 0.0, 1e-30, 0.0, 3.0, 0.0]])
    assert draw(weights, np.array([uniform])).item() in (2, 4)


@given(seed=st.integers(0, 2**64 - 1), position=st.integers(0, 10**6), others=st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_random_numbers_depend_on_seed_and_position_alone(seed: int, position: int, others: int) -> None:
    alone = uniforms(draw_rows([(sequence(seed=seed), position, 1)]), Stream.DRAW)[0]
    batch = [(sequence(seed=other), other, 2) for other in range(others)] + [(sequence(seed=seed), position - 0, 1)]
    assert uniforms(draw_rows(batch), Stream.DRAW)[-1] == alone
    assert 0 <= alone < 1


def test_random_numbers_are_uniform_and_uncorrelated() -> None:
    rows = draw_rows([(sequence(seed=seed), 0, 200) for seed in range(100)])
    streams = [uniforms(rows, stream) for stream in Stream]
    for numbers in streams:
        assert stats.kstest(numbers, "uniform").pvalue > 1e-4
        grid = numbers.reshape(100, 200)
        assert abs(np.corrcoef(grid[:, :-1].ravel(), grid[:, 1:].ravel())[0, 1]) < 0.03  # along positions
        assert abs(np.corrcoef(grid[:-1].ravel(), grid[1:].ravel())[0, 1]) < 0.03  # along seeds
    assert np.abs(np.corrcoef(streams) - np.eye(len(Stream))).max() < 0.03


def test_stop_tokens_are_masked_row_by_row_until_min_tokens() -> None:
    item = sequence(min_tokens=2, max_tokens=5, stop_token_ids=(0,), ignore_eos=True)
    logits = torch.zeros(4, 4)
    mask_stop_tokens_(logits, draw_rows([(item, 2, 4)]))  # outputs 0 to 3
    masked = logits.isinf()
    assert masked[:2].tolist() == [[True, False, False, True]] * 2
    assert not masked[2:].any()
