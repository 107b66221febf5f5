"""`ProposerContract`: what every way of drafting must keep. Subclass it and say the speculative_config."""

from collections.abc import Callable
from typing import Any

import pytest

from engine.bundled.llm_engine import LLMEngine, SamplingParams

BLOCK_BYTES = 3 * 2 * 2 * 16 * 4 * 4  # layers, keys and values, KV heads, head size, tokens, float32
GREEDY = SamplingParams(max_tokens=32, temperature=0.0)
MakeEngine = Callable[..., LLMEngine]


class ProposerContract:
    """Needs a fixture `speculative_config`; `bytes_per_block` covers the target's cache and the proposer's own."""

    bytes_per_block = BLOCK_BYTES

    @pytest.mark.parametrize("num_speculative_tokens", [1, 2, 5, 8, "auto"])
    def test_greedy_output_is_identical_to_plain(
        self,
        make_engine: MakeEngine,
        prompts: list[list[int]],
        plain: list[list[int]],
        speculative_config: dict[str, Any],
        num_speculative_tokens: int | str,
    ) -> None:
        config = speculative_config | {"num_speculative_tokens": num_speculative_tokens}
        engine = make_engine(speculative_config=config)
        assert engine.generate(prompts, GREEDY) == plain
        assert engine.generate(prompts, GREEDY) == plain  # over shared prefixes
        counters = engine.counters()
        assert counters.num_draft_tokens > 0
        if num_speculative_tokens != "auto":  # which stops drafting what is not kept, after a time the clock decides
            assert 0 < counters.num_accepted_tokens < counters.num_draft_tokens, "neither always right nor always wrong"

    @pytest.mark.parametrize(
        "fields",
        [
            {"max_num_batched_tokens": 16},
            {"num_blocks": 32, "max_model_len": 128},
            {"num_blocks": 32, "max_model_len": 128, "max_num_batched_tokens": 16},
            {"enable_prefix_caching": False},
            {"block_size": 1},
        ],
        ids=str,
    )
    def test_pages_chunks_and_preemption_change_nothing(
        self,
        make_engine: MakeEngine,
        prompts: list[list[int]],
        plain: list[list[int]],
        speculative_config: dict[str, Any],
        fields: dict[str, Any],
    ) -> None:
        values = dict(fields)
        if "num_blocks" in values:
            values["kv_cache_memory_bytes"] = values.pop("num_blocks") * self.bytes_per_block
        engine = make_engine(speculative_config=speculative_config, **values)
        assert engine.generate(prompts, GREEDY) == plain
        assert ("num_blocks" in fields) == (engine.counters().num_preemptions > 0)
        engine.block_manager.check_integrity([])

    def test_limits_and_stops_hold(
        self,
        make_engine: MakeEngine,
        prompts: list[list[int]],
        plain: list[list[int]],
        speculative_config: dict[str, Any],
    ) -> None:
        engine = make_engine(speculative_config=speculative_config)
        for max_tokens in (1, 2, 3, 7):
            outputs = engine.generate(prompts, SamplingParams(max_tokens=max_tokens, temperature=0.0))
            assert outputs == [output[:max_tokens] for output in plain]
        for stop in plain[5][:6]:
            params = SamplingParams(max_tokens=32, temperature=0.0, stop_token_ids=(stop,))
            assert engine.generate([prompts[5]], params) == [plain[5][: plain[5].index(stop) + 1]]

    def test_masked_stops_are_those_of_plain(
        self,
        make_engine: MakeEngine,
        prompts: list[list[int]],
        plain: list[list[int]],
        speculative_config: dict[str, Any],
    ) -> None:
        stops = tuple(sorted(set(plain[5][:4])))
        params = SamplingParams(max_tokens=32, temperature=0.0, min_tokens=16, stop_token_ids=stops)
        expected = make_engine().generate(prompts, params)
        assert make_engine(speculative_config=speculative_config).generate(prompts, params) == expected

    @pytest.mark.parametrize("num_speculative_tokens", [3, "auto"])
    def test_seeds_are_reproducible_whatever_the_batch(
        self,
        make_engine: MakeEngine,
        prompts: list[list[int]],
        speculative_config: dict[str, Any],
        num_speculative_tokens: int | str,
    ) -> None:
        params = SamplingParams(max_tokens=16, temperature=0.7, top_p=0.9, seed=11)
        config = speculative_config | {"num_speculative_tokens": num_speculative_tokens}
        engine = make_engine(speculative_config=config, enable_prefix_caching=False)
        together = engine.generate(prompts, params)
        assert [engine.generate([prompt], params)[0] for prompt in prompts] == together

    def test_greedy_and_drawn_requests_share_a_batch(
        self,
        make_engine: MakeEngine,
        prompts: list[list[int]],
        plain: list[list[int]],
        speculative_config: dict[str, Any],
    ) -> None:
        engine = make_engine(speculative_config=speculative_config)
        drawn = SamplingParams(max_tokens=32, temperature=1.0, seed=1)
        outputs = engine.generate(prompts, [GREEDY if i % 2 else drawn for i in range(len(prompts))])
        assert outputs[1::2] == plain[1::2]
