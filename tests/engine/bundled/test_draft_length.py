"""The adaptive draft length on synthetic step times: what pays is drafted, what does not is not."""

import pytest

from engine.bundled.draft_length import (
    FIXED_FOR_DRAWN,
    MAX_LENGTH,
    AdaptiveLength,
    AdaptiveTree,
    DraftOutcome,
    FixedLength,
    StepCosts,
    make_draft_length,
    max_draft_tokens,
)
from engine.bundled.sampling_params import SamplingParams
from engine.bundled.sequence import Sequence
from engine.config import SpeculativeConfig


def sequence(temperature: float = 0.0) -> Sequence:
    return Sequence("r", [1, 2, 3], SamplingParams(temperature=temperature), seed=0, eos=())


def learn(
    length: AdaptiveLength, sequences: list[Sequence], *, kept: float, base_s: float, token_s: float, pass_s: float = 0
) -> None:
    """200 steps in which a share `kept` of each draft is kept, at these costs."""
    for _ in range(200):
        drafted = [length.of(one) for one in sequences]
        outcomes = [DraftOutcome(s, n, round(kept * n)) for s, n in zip(sequences, drafted, strict=True)]
        num_tokens = len(sequences) + sum(drafted)
        length.observe(outcomes, duration_s=base_s + token_s * num_tokens + pass_s * max(drafted))


def test_a_fixed_length_is_fixed() -> None:
    config = SpeculativeConfig(method="ngram", num_speculative_tokens=5)
    assert make_draft_length(config).of(sequence()) == 5
    assert make_draft_length(None).of(sequence()) == 0
    assert FixedLength(3).max_length == 3


def test_kept_drafts_grow_long_when_tokens_are_cheap() -> None:
    length, mine = AdaptiveLength(drafts_cost_passes=False), sequence()
    learn(length, [mine], kept=1.0, base_s=1e-3, token_s=1e-6)
    assert length.of(mine) == MAX_LENGTH


def test_rejected_drafts_shrink_to_a_probe_now_and_then() -> None:
    length, mine = AdaptiveLength(drafts_cost_passes=False), sequence()
    learn(length, [mine], kept=0.0, base_s=1e-3, token_s=5e-5)
    assert sorted(length.of(mine) for _ in range(16)) == [0] * 14 + [1] * 2


def test_drafts_come_back_when_they_begin_to_be_kept() -> None:
    length, mine = AdaptiveLength(drafts_cost_passes=False), sequence()
    learn(length, [mine], kept=0.0, base_s=1e-3, token_s=5e-5)
    learn(length, [mine], kept=1.0, base_s=1e-3, token_s=5e-5)
    assert length.of(mine) > 4


def test_the_same_drafts_are_shorter_where_tokens_cost_more() -> None:
    found = []
    for token_s in (1e-6, 1e-4, 1e-3):
        length, crowd = AdaptiveLength(drafts_cost_passes=False), [sequence() for _ in range(16)]
        learn(length, crowd, kept=0.8, base_s=1e-3, token_s=token_s)
        found.append(length.of(crowd[0]))
    assert found[0] > found[1] >= found[2]


def test_a_trees_tokens_must_be_likelier_where_tokens_cost_more() -> None:
    config = {"method": "medusa", "num_speculative_tokens": "auto", "model": "m", "tree_nodes": 8}
    speculation = SpeculativeConfig.model_validate(config)
    assert max_draft_tokens(speculation) == 8
    found = []
    for token_s in (1e-6, 1e-4, 1e-3):
        length = make_draft_length(speculation)
        assert isinstance(length, AdaptiveTree)
        for number in range(200):
            size = 1 + number % 8  # trees differ from step to step
            length.observe([DraftOutcome(sequence(), size, 1)], duration_s=1e-3 + token_s * (1 + size))
        assert length.of(sequence()) == MAX_LENGTH, "the proposer leaves out what does not pay"
        found.append(length.min_chance())
    assert 0 < found[0] < found[1] < found[2] < 1


def test_sequences_are_told_apart() -> None:
    length, good, bad = AdaptiveLength(drafts_cost_passes=False), sequence(), sequence()
    for _ in range(100):
        drafted = length.of(good), length.of(bad)
        outcomes = [DraftOutcome(good, drafted[0], drafted[0]), DraftOutcome(bad, drafted[1], 0)]
        length.observe(outcomes, duration_s=1e-3 + 5e-5 * (2 + sum(drafted)))
    assert length.of(good) > 2 * length.of(bad)


def test_drafting_passes_shorten_a_draft_models_drafts() -> None:
    found = []
    for pass_s in (1e-5, 1e-3):
        length, mine = AdaptiveLength(drafts_cost_passes=True), sequence()
        learn(length, [mine], kept=0.75, base_s=1e-3, token_s=1e-5, pass_s=pass_s)
        found.append(length.of(mine))
    assert found[0] > found[1]


def test_what_a_seed_draws_does_not_depend_on_the_clock() -> None:
    length, drawn = AdaptiveLength(drafts_cost_passes=True, drafts_are_drawn=True), sequence(temperature=1.0)
    learn(length, [sequence()], kept=1.0, base_s=1e-3, token_s=1e-6)
    assert length.of(drawn) == FIXED_FOR_DRAWN


def test_costs_are_found_from_steps_that_vary() -> None:
    costs = StepCosts()
    for step in range(400):
        num_tokens, num_passes = 1 + step % 17, step % 5
        costs.add(num_tokens, num_passes, 1e-3 + 2e-5 * num_tokens + 3e-4 * num_passes)
    per_token, per_pass = costs.fitted()
    assert per_token == pytest.approx(2e-5, rel=0.25)
    assert per_pass == pytest.approx(3e-4, rel=0.25)
