"""What the engine must not change: tokens, whatever the batch, the pages, the chunks or the memory."""

from collections.abc import Callable
from typing import Any

import pytest

from engine.bundled.llm_engine import LLMEngine, RequestOutput, SamplingParams

GREEDY = SamplingParams(max_tokens=24, temperature=0.0)
DRAWN = SamplingParams(max_tokens=24, temperature=0.9, top_p=0.95, top_k=40, seed=7)
BLOCK_BYTES = 3 * 2 * 2 * 16 * 4 * 4  # layers, keys and values, KV heads, head size, tokens, float32
MakeEngine = Callable[..., LLMEngine]


@pytest.fixture(scope="module", params=[GREEDY, DRAWN], ids=["greedy", "drawn"])
def params(request: pytest.FixtureRequest) -> SamplingParams:
    return request.param


@pytest.fixture(scope="module")
def alone(make_engine: MakeEngine, prompts: list[list[int]], params: SamplingParams) -> list[list[int]]:
    """Each prompt by itself, without any cleverness."""
    engine = make_engine(enable_prefix_caching=False)
    return [engine.generate([prompt], params)[0] for prompt in prompts]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_num_seqs": 2},
        {"block_size": 256},
        {"block_size": 1},
        {"max_num_batched_tokens": 16},
        {"enable_chunked_prefill": False, "max_num_batched_tokens": 40},
        {"enable_prefix_caching": False},
        {"kv_cache_memory_bytes": 64 * BLOCK_BYTES, "max_model_len": 128},
        {"kv_cache_memory_bytes": 32 * BLOCK_BYTES, "max_model_len": 128, "max_num_batched_tokens": 16},
        {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_min": 1}},
    ],
    ids=lambda fields: "-".join(f"{name}={value}" for name, value in fields.items()) or "default",
)
def test_batched_equals_alone(
    make_engine: MakeEngine,
    prompts: list[list[int]],
    params: SamplingParams,
    alone: list[list[int]],
    fields: dict[str, Any],
) -> None:
    engine = make_engine(**fields)
    assert engine.generate(prompts, params) == alone
    assert engine.generate(prompts[::-1], params) == alone[::-1]  # now with a warm prefix cache
    engine.block_manager.check_integrity([])


def test_tight_memory_preempts(make_engine: MakeEngine, prompts: list[list[int]]) -> None:
    engine = make_engine(kv_cache_memory_bytes=32 * BLOCK_BYTES, max_model_len=128)
    engine.generate(prompts, GREEDY)
    assert engine.counters().num_preemptions > 0


def test_requests_that_come_and_go_do_not_disturb_others(
    make_engine: MakeEngine, prompts: list[list[int]], params: SamplingParams, alone: list[list[int]]
) -> None:
    engine = make_engine()
    collected: dict[str, list[int]] = {str(i): [] for i in range(len(prompts))}
    for index, prompt in enumerate(prompts):
        engine.add_request(str(index), prompt, params)
        engine.add_request(f"noise {index}", prompt[::-1], SamplingParams(max_tokens=50))
        _collect(engine.step(), collected)
        engine.abort(f"noise {index}")
    while engine.has_unfinished():
        _collect(engine.step(), collected)
    assert list(collected.values()) == alone


def _collect(outputs: list[RequestOutput], collected: dict[str, list[int]]) -> None:
    for output in outputs:
        if output.request_id in collected:
            collected[output.request_id] += output.token_ids


def test_a_shared_prefix_is_found(make_engine: MakeEngine, prompts: list[list[int]]) -> None:
    engine = make_engine()
    cached = []
    for index in (3, 4, 4):
        engine.add_request("one", prompts[index], GREEDY)
        while engine.has_unfinished():
            (output,) = engine.step()
        cached.append(output.num_cached_tokens)
    # 24 shared tokens fill 6 blocks of 4; the repeated prompt of 26 shares 6 full blocks again.
    assert cached == [0, 24, 24]
    counters = engine.counters()
    assert (counters.prefix_cache_queries, counters.prefix_cache_hits) == (27 + 26 + 26, 48)


def test_the_last_token_is_always_computed(make_engine: MakeEngine, prompts: list[list[int]]) -> None:
    engine = make_engine()
    whole_blocks = prompts[3][:24]
    first = engine.generate([whole_blocks], GREEDY)
    assert engine.generate([whole_blocks], GREEDY) == first
    assert engine.counters().prefix_cache_hits == 20


def test_the_prefix_cache_is_reset_only_when_idle(make_engine: MakeEngine, prompts: list[list[int]]) -> None:
    engine = make_engine()
    engine.add_request("one", prompts[3], GREEDY)
    engine.step()
    assert not engine.reset_prefix_cache()
    engine.abort("one")
    assert engine.reset_prefix_cache()
    engine.generate([prompts[3]], GREEDY)
    assert engine.counters().prefix_cache_hits == 0


def test_the_same_seed_draws_the_same_and_another_does_not(make_engine: MakeEngine, prompts: list[list[int]]) -> None:
    engine = make_engine()
    draws = [engine.generate([prompts[0]], SamplingParams(max_tokens=24, seed=seed))[0] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_requests_without_a_seed_differ_and_engines_agree(make_engine: MakeEngine, prompts: list[list[int]]) -> None:
    unseeded = SamplingParams(max_tokens=24)
    first, second = (make_engine().generate([prompts[0]] * 2, unseeded) for _ in range(2))
    assert first == second
    assert first[0] != first[1]


def test_counters_add_up(make_engine: MakeEngine, prompts: list[list[int]]) -> None:
    engine = make_engine()
    engine.generate(prompts, GREEDY)
    counters = engine.counters()
    assert counters.prompt_tokens == sum(map(len, prompts))
    assert counters.generation_tokens == 24 * len(prompts)
    assert counters.num_finished == {"length": len(prompts)}
    assert counters.kv_cache_usage == 0.0


def test_abort_frees_and_forgets(make_engine: MakeEngine, prompts: list[list[int]]) -> None:
    engine = make_engine()
    engine.add_request("one", prompts[2], GREEDY)
    engine.add_request("two", prompts[3], GREEDY)
    engine.step()
    engine.abort("one")
    engine.abort("nobody")
    assert {output.request_id for output in engine.step()} == {"two"}
    engine.abort("two")
    assert not engine.has_unfinished()
    assert engine.step() == []
    assert engine.counters().num_finished == {"abort": 2}
    engine.block_manager.check_integrity([])
