"""The proposers under their contract, and exactness of rejection."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_law import assert_same_law
from proposer_contract import BLOCK_BYTES, ProposerContract
from random_models import (
    save_eagle_head,
    save_perturbed,
    save_random_model,
    save_transparent_model,
)
from scipy import stats

from engine.bundled.batch import Span
from engine.bundled.llm_engine import CheckpointError, LLMEngine, SamplingParams, UnsupportedError
from engine.bundled.sampling import DrawRows
from engine.bundled.sequence import Sequence
from engine.bundled.speculation import Draft
from engine.bundled.speculation.eagle import EagleProposer
from engine.bundled.speculation.ngram import NgramProposer, _NgramIndex
from engine.bundled.speculation.rejection import verify
from engine.bundled.speculation.suffix import PastOutputs, TokenHistory

MakeEngine = Callable[..., LLMEngine]


class DeterministicProposerContract(ProposerContract):
    def test_drawn_tokens_are_those_of_plain(
        self, make_engine: MakeEngine, prompts: list[list[int]], speculative_config: dict[str, Any]
    ) -> None:
        """A deterministic draft does not change which tokens a seed draws, not only their law."""
        params = SamplingParams(max_tokens=32, temperature=0.8, top_k=20, seed=5)
        expected = make_engine().generate(prompts, params)
        assert make_engine(speculative_config=speculative_config).generate(prompts, params) == expected


class TestNgram(DeterministicProposerContract):
    @pytest.fixture
    def speculative_config(self) -> dict[str, Any]:
        return {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_min": 1}


class TestSuffix(DeterministicProposerContract):
    @pytest.fixture
    def speculative_config(self) -> dict[str, Any]:
        return {"method": "suffix", "num_speculative_tokens": 3}

    def test_an_answer_given_before_is_proposed_whole(
        self, make_engine: MakeEngine, prompts: list[list[int]], speculative_config: dict[str, Any]
    ) -> None:
        """And no longer after the caches are reset: a second replay must not profit from the first."""
        engine = make_engine(speculative_config=speculative_config | {"num_speculative_tokens": 8})

        def accepted() -> int:
            before = engine.counters().num_accepted_tokens
            engine.generate(prompts[:3], SamplingParams(max_tokens=32, temperature=0.0))
            return engine.counters().num_accepted_tokens - before

        first, again = accepted(), accepted()
        assert again > first + 30
        assert engine.reset_prefix_cache()
        assert accepted() == first


class TestDraftModel(ProposerContract):
    bytes_per_block = 2 * BLOCK_BYTES

    @pytest.fixture
    def speculative_config(self, llama_draft: Path) -> dict[str, Any]:
        return {"method": "draft_model", "num_speculative_tokens": 3, "model": str(llama_draft)}

    def test_the_target_as_its_own_draft_is_always_accepted(
        self, make_engine: MakeEngine, llama: Path, prompts: list[list[int]]
    ) -> None:
        """Its cache must then hold every accepted token: any gap would show as a rejection."""
        config = {"method": "draft_model", "num_speculative_tokens": 3, "model": str(llama)}
        engine = make_engine(speculative_config=config, max_num_batched_tokens=24)
        for temperature in (0.0, 1.0):
            engine.generate(prompts + prompts, SamplingParams(max_tokens=33, temperature=temperature, seed=3))
        counters = engine.counters()
        # Rounding may differ between a row that is verified among four and one that is drafted alone.
        assert counters.num_accepted_tokens >= 0.995 * counters.num_draft_tokens > 0
        assert counters.prefix_cache_hits > 0

    def test_another_vocabulary_is_refused(self, make_engine: MakeEngine, tmp_path: Path) -> None:
        other = save_random_model(tmp_path / "other", vocab_size=50)
        with pytest.raises(UnsupportedError, match="vocabulary"):
            make_engine(speculative_config={"method": "draft_model", "num_speculative_tokens": 2, "model": str(other)})


class TestMedusa(DeterministicProposerContract):
    @pytest.fixture
    def speculative_config(self, medusa_heads: Path) -> dict[str, Any]:
        return {"method": "medusa", "num_speculative_tokens": 3, "model": str(medusa_heads)}

    def test_more_tokens_than_heads_are_refused(
        self, make_engine: MakeEngine, speculative_config: dict[str, Any]
    ) -> None:
        with pytest.raises(UnsupportedError, match="has 8 Medusa heads"):
            make_engine(speculative_config=speculative_config | {"num_speculative_tokens": 9})

    def test_heads_of_another_model_are_refused(
        self, make_engine: MakeEngine, tmp_path: Path, speculative_config: dict[str, Any]
    ) -> None:
        other = save_random_model(tmp_path / "other", hidden_size=128)
        with pytest.raises(CheckpointError, match="belong to the model"):
            make_engine(model=str(other), speculative_config=speculative_config)


class TestEagle(DeterministicProposerContract):
    bytes_per_block = BLOCK_BYTES + BLOCK_BYTES // 3

    @pytest.fixture
    def speculative_config(self, eagle_head: Path) -> dict[str, Any]:
        return {"method": "eagle", "num_speculative_tokens": 3, "model": str(eagle_head)}

    def test_the_targets_own_layer_is_always_accepted(
        self, make_engine: MakeEngine, prompts: list[list[int]], tmp_path: Path
    ) -> None:
        """Its cache must then hold every accepted token: any gap would show as a rejection."""
        target = save_transparent_model(tmp_path / "target")
        head = save_eagle_head(target, tmp_path / "head", layer=0, token_share=1.0, feature_share=0.0)
        config = {"method": "eagle", "num_speculative_tokens": 3, "model": str(head)}
        engine = make_engine(model=str(target), speculative_config=config, max_num_batched_tokens=24)
        engine.generate(prompts + prompts, SamplingParams(max_tokens=33, temperature=0.0))
        counters = engine.counters()
        assert counters.num_accepted_tokens >= 0.995 * counters.num_draft_tokens > 0
        assert counters.prefix_cache_hits > 0

    @pytest.mark.parametrize(
        "fields", [{"max_num_batched_tokens": 16}, {"enable_prefix_caching": False}, {"enforce_eager": True}], ids=str
    )
    def test_features_reach_their_places_however_they_come(
        self,
        make_engine: MakeEngine,
        prompts: list[list[int]],
        speculative_config: dict[str, Any],
        fields: dict[str, Any],
    ) -> None:
        """What the head reads at a place depends on the tokens alone, not on chunks, cached prefixes or batches."""

        def read(**own: Any) -> dict[tuple[int, ...], torch.Tensor]:
            engine = make_engine(speculative_config=speculative_config, **own)
            proposer = engine.runner.proposer
            assert isinstance(proposer, EagleProposer)
            found: dict[tuple[int, ...], torch.Tensor] = {}
            look_up = proposer._features_before

            def recording(sequence: Sequence, span: Span) -> torch.Tensor:
                rows = look_up(sequence, span)
                for place, row in enumerate(rows, start=span.start):
                    prefix = tuple(sequence.token_ids[: place + 1])
                    assert torch.allclose(row, found.setdefault(prefix, row.clone()), atol=1e-4), "first and cached"
                return rows

            proposer._features_before = recording  # type: ignore[method-assign]
            for prompt in (*prompts, *prompts):
                engine.generate([prompt], SamplingParams(max_tokens=32, temperature=0.0))
            return found

        found, usual = read(**fields), read()
        assert found.keys() == usual.keys()
        assert all(torch.allclose(row, usual[prefix], atol=1e-4) for prefix, row in found.items())

    def test_heads_of_another_model_are_refused(
        self, make_engine: MakeEngine, tmp_path: Path, speculative_config: dict[str, Any]
    ) -> None:
        other = save_random_model(tmp_path / "other", hidden_size=128)
        with pytest.raises(CheckpointError, match="belong to the model"):
            make_engine(model=str(other), speculative_config=speculative_config)


def test_ngrams_prefer_the_longest_then_the_latest_match() -> None:
    index = _NgramIndex(range(3, 0, -1))
    # 1 2 3 stood at the start, 2 3 again later: the longer match wins.
    assert index.continuation([1, 2, 3, 7, 8, 2, 3, 9, 1, 2, 3], 2) == [7, 8]
    index = _NgramIndex(range(2, 0, -1))
    assert index.continuation([2, 3, 7, 2, 3, 9, 2, 3], 2) == [9, 2]


def test_ngrams_run_on_into_their_own_draft() -> None:
    index = _NgramIndex(range(2, 0, -1))
    assert index.continuation([4, 5, 4, 5], 5) == [4, 5, 4, 5, 4]


def test_ngrams_without_a_match_propose_nothing() -> None:
    assert _NgramIndex(range(4, 1, -1)).continuation([1, 2, 3, 4], 3) == []


def history(tokens: list[int]) -> TokenHistory:
    made = TokenHistory(tokens)
    made.catch_up()
    return made


def test_suffixes_follow_the_longest_match_whatever_its_age() -> None:
    tokens = [1, 2, 3, 4, 7, 8, 3, 4, 9, 1, 2, 3, 4]
    places, length = history(tokens).longest_matches(tokens, 24)
    assert (places, length) == ([4], 4)
    assert history(tokens).longest_matches(tokens, 2) == ([8, 4], 2)


def test_suffixes_weigh_continuations_by_how_often_they_followed() -> None:
    past = history([1, 2, 5, 6, -1, 1, 2, 5, 7, -1, 1, 2, 8, -1])
    places, _ = past.longest_matches([1, 2], 24)
    path, score = past.continuation(places, 8, 0.0)
    assert path[0] == 5
    assert len(path) == 2
    assert score == pytest.approx(2 / 3 + 1 / 3)
    assert past.continuation(places, 8, 0.5).token_ids == [5]


def test_suffixes_run_on_into_their_own_draft() -> None:
    tokens = [4, 5, 4, 5]
    places, _ = history(tokens).longest_matches(tokens, 24)
    assert history(tokens).continuation(places, 5, 0.0).token_ids == [4, 5, 4, 5, 4]


@pytest.mark.parametrize(("limit", "remembered"), [(0, []), (2, [4, 5]), (4, [2, 3, 4, 5]), (6, [0, 1, 2, 3, 4, 5])])
def test_past_outputs_forget_the_older_half(limit: int, remembered: list[int]) -> None:
    past = PastOutputs(limit)
    for number in range(6):
        past.add([number, number])
    found = {token for generation in past.generations for token in generation.tokens}
    assert sorted(found - {-1}) == remembered


def test_ngram_indices_die_with_their_sequences(make_engine: MakeEngine, prompts: list[list[int]]) -> None:
    engine = make_engine(speculative_config={"method": "ngram", "num_speculative_tokens": 2})
    engine.generate(prompts, SamplingParams(max_tokens=8))
    proposer = engine.runner.proposer
    assert isinstance(proposer, NgramProposer)
    assert len(proposer._indices) == 0


def rows_of(count: int, *, temperature: float = 1.0, position: int = 3) -> DrawRows:
    """`count` independent requests that each verify at `position`: two rows, the draft's and the bonus."""
    return DrawRows(
        temperatures=np.full(2 * count, temperature, np.float32),
        top_ks=np.zeros(2 * count, np.int64),
        top_ps=np.ones(2 * count, np.float32),
        seeds=np.repeat(np.arange(count, dtype=np.uint64), 2),
        positions=np.tile(np.array([position, position + 1], np.uint64), count),
        masked_rows=[],
        masked_token_ids=[],
    )


@pytest.mark.parametrize("is_drawn", [False, True], ids=["one-hot", "drawn"])
def test_verified_tokens_follow_the_target(is_drawn: bool) -> None:
    """Chi-square of the first token of 40,000 drafts from a wrong distribution; p > 1e-4 for these fixed seeds."""
    count, vocab_size = 40_000, 8
    generator = torch.Generator().manual_seed(2)
    p = torch.softmax(torch.randn(vocab_size, generator=generator), -1)
    q = torch.softmax(torch.randn(vocab_size, generator=generator), -1)
    drafted = torch.multinomial(q, count, replacement=True, generator=generator).tolist()
    drafts = [Draft.chain([token], q.unsqueeze(0) if is_drawn else None) for token in drafted]
    verdicts = verify(p.log().expand(2 * count, -1).clone(), rows_of(count), drafts)
    seen = Counter(verdicts.token_ids[::2])
    assert stats.chisquare([seen[i] for i in range(vocab_size)], (p * count).tolist()).pvalue > 1e-4
    accepted = sum(verdicts.accepted[::2]) / count
    expected = torch.minimum(p, q).sum() if is_drawn else (p * q).sum()
    assert accepted == pytest.approx(expected.item(), abs=0.01)
    assert not any(verdicts.accepted[1::2]), "a bonus token is never a draft"


@pytest.mark.parametrize("method", ["ngram", "suffix", "draft_model"])
def test_drawn_speculation_follows_the_target_end_to_end(tmp_path: Path, make_engine: MakeEngine, method: str) -> None:
    """The joint law of three tokens on a vocabulary of 5, against plain decoding, over 3,000 seeds."""
    target = save_random_model(tmp_path / "target", vocab_size=5, num_hidden_layers=1)
    draft = save_perturbed(target, tmp_path / "draft", relative=0.3)
    config = {"method": method, "num_speculative_tokens": 2, "prompt_lookup_min": 1}
    config |= {"model": str(draft)} if method == "draft_model" else {}
    assert_same_law(make_engine, target, config, max_tokens=3)


def test_a_draft_is_a_tree_and_a_chain_is_one() -> None:
    assert Draft.chain([5, 6, 7]).parents == (-1, 0, 1)
    assert Draft.chain([5, 6, 7]).is_chain
    assert not Draft(token_ids=(5, 6, 7), parents=(-1, -1, 0)).is_chain
