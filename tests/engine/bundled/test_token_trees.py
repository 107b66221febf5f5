"""Trees of drafts: their shape, what their tokens see, and that verifying them is exact."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from draft_trees import TREES
from drawn_law import assert_same_law
from hypothesis import given, settings
from hypothesis import strategies as st
from proposer_contract import ProposerContract
from random_models import VOCAB_SIZE, save_medusa_heads, save_random_model

from engine.bundled.batch import Moves, Span
from engine.bundled.fused.fused_model import FusedModel
from engine.bundled.fused.library import UnavailableError, load_library
from engine.bundled.llm_engine import LLMEngine, SamplingParams
from engine.bundled.loader import load_model
from engine.bundled.paged_model import Forward, Model, PagedModel
from engine.bundled.resident import ResidentModel
from engine.bundled.scheduler import ScheduledSequence
from engine.bundled.sequence import Sequence as Request
from engine.bundled.speculation import Draft
from engine.bundled.speculation.medusa import Guesses, MedusaProposer
from engine.bundled.token_tree import depths, paths
from engine.config import ConfigError, EngineConfig, parse_engine_config

MakeEngine = Callable[..., LLMEngine]
CPU = torch.device("cpu")


class TestMedusaTree(ProposerContract):
    @pytest.fixture
    def speculative_config(self, medusa_heads: Path) -> dict[str, Any]:
        return {"method": "medusa", "num_speculative_tokens": 3, "tree_nodes": 9, "model": str(medusa_heads)}

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"enforce_eager": True},
            {"quantization": {"kv_cache": "int8", "weights": "int8"}},
            {"quantization": {"kv_cache": "fp8"}},
            {"dtype": "bfloat16", "num_threads": 2},
        ],
        ids=str,
    )
    def test_drawn_tokens_and_their_log_probabilities_are_those_of_plain(
        self,
        make_engine: MakeEngine,
        prompts: list[list[int]],
        speculative_config: dict[str, Any],
        fields: dict[str, Any],
    ) -> None:
        if not fields.get("enforce_eager"):
            try:
                load_library(torch.float32)
            except UnavailableError as reason:
                pytest.skip(str(reason))

        def said(**own: Any) -> list[Any]:
            engine = make_engine(**fields, **own)
            for number, prompt in enumerate(prompts):
                params = SamplingParams(max_tokens=24, temperature=0.8 * (number % 2), top_k=20, seed=5, logprobs=2)
                engine.add_request(str(number), prompt, params)
            outputs: dict[str, list[Any]] = {}
            while engine.has_unfinished():
                for output in engine.step():
                    outputs.setdefault(output.request_id, []).extend(output.logprobs or [])
            return [outputs[str(number)] for number in range(len(prompts))]

        plain, tree = said(), said(speculative_config=speculative_config)
        assert [[p.token_id for p in answer] for answer in tree] == [[p.token_id for p in answer] for answer in plain]
        if not fields.get("enforce_eager"):
            assert tree == plain, "the compiled decoder's numbers are those of plain decoding, bit for bit"

    def test_a_tree_keeps_more_than_the_chain_it_holds(
        self, make_engine: MakeEngine, prompts: list[list[int]], speculative_config: dict[str, Any]
    ) -> None:
        def steps(config: dict[str, Any]) -> int:
            engine = make_engine(speculative_config=config)
            engine.generate(prompts, SamplingParams(max_tokens=64, temperature=0.0))
            counters = engine.counters()
            assert len(counters.accepted_tokens_per_position) == 3, "by depth"
            assert sum(counters.accepted_tokens_per_position) == counters.num_accepted_tokens
            return counters.num_drafts

        chain = {name: value for name, value in speculative_config.items() if name != "tree_nodes"}
        assert steps(speculative_config | {"tree_nodes": 24}) < steps(chain)

    def test_heads_read_the_hidden_states_that_they_would_read_with_chains(
        self, make_engine: MakeEngine, prompts: list[list[int]], speculative_config: dict[str, Any]
    ) -> None:
        def read(**own: int | None) -> dict[tuple[int, ...], torch.Tensor]:
            engine = make_engine(speculative_config=speculative_config | own)
            proposer = engine.runner.proposer
            assert isinstance(proposer, MedusaProposer)
            found: dict[tuple[int, ...], torch.Tensor] = {}
            guesses = proposer._guesses

            def recording(sequences: Sequence[Request], num_heads: int) -> list[Guesses]:
                for sequence in sequences:
                    features, last = proposer._features.of(sequence), sequence.num_tokens - 2
                    assert features is not None
                    found[tuple(sequence.token_ids)] = features.at(last, last).clone()
                return guesses(sequences, num_heads)

            proposer._guesses = recording  # type: ignore[method-assign]
            engine.generate(prompts, SamplingParams(max_tokens=32, temperature=0.0))
            return found

        tree, chain = read(), read(tree_nodes=None, num_speculative_tokens=1)
        shared = tree.keys() & chain.keys()
        assert len(shared) > 20
        for known in shared:
            torch.testing.assert_close(tree[known], chain[known], rtol=0, atol=1e-3)

    def test_answers_of_a_schema_go_without_drafts(
        self,
        make_engine: MakeEngine,
        prompts: list[list[int]],
        plain: list[list[int]],
        speculative_config: dict[str, Any],
    ) -> None:
        """As with chains; beside them others draft on."""

        class Anything:
            def allowed(self) -> None:
                return None

            def consume(self, token_ids: Sequence[int]) -> None: ...

        engine = make_engine(speculative_config=speculative_config)
        for number, prompt in enumerate(prompts):
            engine.add_request(str(number), prompt, SamplingParams(max_tokens=32, temperature=0.0))
        bound = engine._sequences["0"]
        bound.grammar = Anything()  # type: ignore[assignment]
        outputs: dict[str, list[int]] = {}
        while engine.has_unfinished():
            for output in engine.step():
                outputs.setdefault(output.request_id, []).extend(output.token_ids)
                assert output.request_id != "0" or len(output.token_ids) == 1
        assert [outputs[str(number)] for number in range(len(prompts))] == plain

    def test_ranks_of_a_tensor_split_keep_the_same_places(
        self,
        make_engine: MakeEngine,
        prompts: list[list[int]],
        plain: list[list[int]],
        speculative_config: dict[str, Any],
    ) -> None:
        engine = make_engine(speculative_config=speculative_config, tensor_parallel_size=2)
        try:
            assert engine.generate(prompts, SamplingParams(max_tokens=32, temperature=0.0)) == plain
            assert engine.counters().num_accepted_tokens > 0
        finally:
            engine.close()


def test_a_warm_engine_goes_from_chain_to_tree_and_back(
    llama: Path, medusa_heads: Path, prompts: list[list[int]], plain: list[list[int]]
) -> None:
    resident = ResidentModel()
    chain = {"method": "medusa", "num_speculative_tokens": 3, "model": str(medusa_heads)}
    for speculation in (
        chain,
        chain | {"tree_nodes": 8},
        chain | {"tree_nodes": 8, "num_speculative_tokens": "auto"},
        chain,
    ):
        values = {"model": str(llama), "block_size": 4, "num_threads": 1, "speculative_config": speculation}
        engine = LLMEngine(EngineConfig.model_validate(values), device="cpu", resident=resident)
        assert engine.generate(prompts, SamplingParams(max_tokens=32, temperature=0.0)) == plain
        engine.close()


@pytest.mark.parametrize(
    ("method", "fields", "words"),
    [
        ("ngram", {"tree_nodes": 4}, "tree_nodes does not belong to method ngram"),
        ("medusa", {"tree_nodes": 2}, "tree_nodes (2) is smaller than num_speculative_tokens (3)"),
        ("medusa", {"tree_nodes": 65}, "less than or equal to 64"),
    ],
)
def test_trees_that_cannot_be_are_refused(method: str, fields: dict[str, int], words: str) -> None:
    values = {"method": method, "num_speculative_tokens": 3} | ({"model": "m"} if method == "medusa" else {}) | fields
    with pytest.raises(ConfigError, match=re.escape(words)):
        parse_engine_config({"model": "m", "speculative_config": values}, where="config.yaml")


def test_a_tree_shows_in_labels_dumps_and_fingerprints_and_a_chain_is_as_before() -> None:
    def config(**fields: Any) -> EngineConfig:
        speculation = {"method": "medusa", "num_speculative_tokens": 3, "model": "m"} | fields
        return EngineConfig.model_validate({"model": "m", "speculative_config": speculation})

    chain, tree = config(), config(tree_nodes=8)
    assert "tree_nodes" not in chain.model_dump(mode="json")["speculative_config"]
    assert EngineConfig.model_validate(tree.model_dump(mode="json")) == tree
    assert tree.fingerprint() != chain.fingerprint()
    assert tree.label(EngineConfig(model="m")) == "medusa k=3 tree of 8"
    assert tree.quality_class() == chain.quality_class()


def test_drawn_trees_follow_the_target_end_to_end(tmp_path: Path, make_engine: MakeEngine) -> None:
    """The joint law of four tokens on a vocabulary of 5, against plain decoding with other seeds, over 3,000 seeds."""
    target = save_random_model(tmp_path / "target", vocab_size=5, num_hidden_layers=1)
    said = make_engine(model=str(target)).generate(
        [[1], [2, 3]], SamplingParams(max_tokens=40, temperature=1.2, seed=1)
    )
    heads = save_medusa_heads(target, tmp_path / "heads", said, num_heads=2)
    config = {"method": "medusa", "num_speculative_tokens": 2, "tree_nodes": 7, "model": str(heads)}
    assert_same_law(make_engine, target, config, max_tokens=4)


class AnyTree:
    """Drafts trees of one shape, partly of what plain decoding said and partly of noise."""

    has_cache: ClassVar[bool] = False
    needs_hidden_states: ClassVar[bool] = True

    def __init__(self, parents: tuple[int, ...], said: list[list[int]], seed: int) -> None:
        self._parents, self._said = parents, said
        self._random = np.random.default_rng(seed)

    def propose(self, scheduled: Sequence[ScheduledSequence]) -> list[Draft]:
        return [self._draft(item) for item in scheduled]

    def _draft(self, item: ScheduledSequence) -> Draft:
        size = min(len(self._parents), item.max_draft_tokens) if item.max_draft_depth else 0
        parents = list(self._parents[:size])
        kept = [i for i in range(size) if depths(tuple(parents))[i] < item.max_draft_depth]
        parents = [kept.index(parents[i]) if parents[i] >= 0 else -1 for i in kept]
        known = item.sequence.num_tokens
        truth = next(s for s in self._said if s[:known] == item.sequence.token_ids)
        taken: set[tuple[int, int]] = set()
        tokens = []
        for parent, depth in zip(parents, depths(tuple(parents)), strict=True):
            right = truth[known + depth] if known + depth < len(truth) else 0
            token = right if self._random.random() < 0.6 else int(self._random.integers(VOCAB_SIZE))
            while (parent, token) in taken:
                token = int(self._random.integers(VOCAB_SIZE))
            taken.add((parent, token))
            tokens.append(token)
        return Draft(token_ids=tuple(tokens), parents=tuple(parents))

    def finished(self, sequence: Request) -> None: ...

    def reset(self) -> None: ...

    def observe(self, scheduled: Sequence[ScheduledSequence], forward: Forward) -> None: ...


@settings(max_examples=12, deadline=None)
@given(parents=TREES, seed=st.integers(0, 1000), block_size=st.sampled_from([1, 4, 16]))
def test_any_tree_says_what_plain_decoding_says(
    make_engine: MakeEngine,
    medusa_heads: Path,
    prompts: list[list[int]],
    plain: list[list[int]],
    parents: tuple[int, ...],
    seed: int,
    block_size: int,
) -> None:
    said = [prompt + answer for prompt, answer in zip(prompts, plain, strict=True)]
    config = {"method": "medusa", "num_speculative_tokens": 8, "tree_nodes": 20, "model": str(medusa_heads)}
    engine = make_engine(speculative_config=config, block_size=block_size)
    engine.runner.proposer = AnyTree(parents, said, seed)
    assert engine.generate(prompts, SamplingParams(max_tokens=32, temperature=0.0)) == plain
    assert engine.generate(prompts, SamplingParams(max_tokens=32, temperature=0.0)) == plain  # over shared prefixes
    engine.block_manager.check_integrity([])


def both(folder: Path, kv_cache: str, block_size: int) -> list[Model]:
    loaded = load_model(folder, dtype="float32", max_positions=None, device=CPU)
    pages: dict[str, Any] = {"num_blocks": 32, "block_size": block_size, "kv_format": kv_cache}
    found: list[Model] = [
        PagedModel(loaded, max_short_query=9, **pages),
        PagedModel(loaded, max_short_query=1, **pages),
    ]
    try:
        load_library(torch.float32)
    except UnavailableError:
        return found
    return [*found, FusedModel(loaded, max_positions=256, **pages)]


@torch.inference_mode()
@settings(max_examples=15, deadline=None)
@given(parents=TREES, block_size=st.sampled_from([4, 16, 20]), kv_cache=st.sampled_from(["bf16", "int8", "fp8"]))
def test_every_path_of_a_tree_is_computed_as_if_it_were_all_there_is(
    llama: Path, parents: tuple[int, ...], block_size: int, kv_cache: str
) -> None:
    """Beside another sequence that decodes; then the last node's path is moved into place and decoding goes on."""
    known = [(13 * i + 5) % VOCAB_SIZE for i in range(22)]
    tokens = [(7 * i + 2) % VOCAB_SIZE for i in range(len(parents))]
    path = [node for node in paths(parents)[-1].tolist() if node >= 0]
    table, other, alone = list(range(12)), list(range(31, 24, -1)), list(range(12, 24))
    for number, model in enumerate(both(llama, kv_cache, block_size)):
        model.forward([Span(known[:-1], 0, table), Span(known[:3], 0, other)])
        model.forward([Span(known[:-1], 0, alone)])
        spans = [Span([5], 3, other), Span(known[-1:] + tokens, len(known) - 1, table, parents)]
        forward = model.forward(spans)
        tree = forward.hidden[2:][path]
        chain = model.forward([Span(known[-1:] + [tokens[node] for node in path], len(known) - 1, alone)]).hidden[1:]
        slots = forward.batch.slots
        model.move(Moves(slots[[2 + node for node in path]].tolist(), slots[2 : 2 + len(path)].tolist()))
        place = len(known) + len(path)
        after = [model.forward([Span([9], place, own)]).hidden for own in (table, alone)]
        if number == 2:
            assert torch.equal(tree, chain)
            assert torch.equal(*after)
        else:
            tolerance = 5e-3 if kv_cache == "bf16" else 0.5  # rounding to codes turns last bits into whole ones
            torch.testing.assert_close(tree, chain, rtol=0, atol=tolerance)
            torch.testing.assert_close(*after, rtol=0, atol=tolerance)


def test_an_adaptive_tree_holds_what_pays(
    make_engine: MakeEngine, prompts: list[list[int]], plain: list[list[int]], medusa_heads: Path
) -> None:
    config = {"method": "medusa", "num_speculative_tokens": "auto", "tree_nodes": 16, "model": str(medusa_heads)}
    engine = make_engine(speculative_config=config)
    chances = []
    length = engine.scheduler.draft_length
    length.min_chance = lambda: chances[-1]  # type: ignore[method-assign]
    drafted = []
    for chance in (0.0, 0.03, 1.0):
        chances.append(chance)
        before = engine.counters()
        assert engine.generate(prompts, SamplingParams(max_tokens=32, temperature=0.0)) == plain
        after = engine.counters()
        drafted.append((after.num_draft_tokens - before.num_draft_tokens) / (after.num_drafts - before.num_drafts))
    assert drafted[0] > drafted[1] > drafted[2] == 1
