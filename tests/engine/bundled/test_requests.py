"""Limits, stops, log-probabilities and refusals of single requests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from random_models import VOCAB_SIZE, reference

from engine.bundled.llm_engine import (
    CapacityError,
    LLMEngine,
    RequestError,
    RequestOutput,
    SamplingParams,
    UnsupportedError,
)

MakeEngine = Callable[..., LLMEngine]
SPECULATIONS = [None, {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 1}]


@pytest.fixture(scope="module", params=SPECULATIONS, ids=["plain", "ngram"])
def engine(request: pytest.FixtureRequest, make_engine: MakeEngine) -> LLMEngine:
    return make_engine(speculative_config=request.param, max_model_len=64)


def run(engine: LLMEngine, prompt: list[int], **params: Any) -> list[RequestOutput]:
    """All outputs of one request."""
    engine.add_request("one", prompt, SamplingParams(**{"temperature": 0.0} | params))
    outputs = []
    while engine.has_unfinished():
        outputs += engine.step()
    return outputs


def tokens(outputs: list[RequestOutput]) -> list[int]:
    return [token_id for output in outputs for token_id in output.token_ids]


@pytest.mark.parametrize("max_tokens", [1, 2, 5, 17])
def test_exactly_max_tokens_are_drawn(engine: LLMEngine, prompts: list[list[int]], max_tokens: int) -> None:
    outputs = run(engine, prompts[5], max_tokens=max_tokens)
    assert len(tokens(outputs)) == max_tokens
    assert [output.finish_reason for output in outputs][-1] == "length"
    assert all(output.finish_reason is None for output in outputs[:-1])


def test_a_stop_token_ends_the_request(engine: LLMEngine, prompts: list[list[int]]) -> None:
    free = tokens(run(engine, prompts[5], max_tokens=24))
    stop = free[9]
    outputs = run(engine, prompts[5], max_tokens=24, stop_token_ids=(stop,))
    assert tokens(outputs) == free[: free.index(stop) + 1]
    assert outputs[-1].finish_reason == "stop"


def test_min_tokens_masks_stop_tokens(engine: LLMEngine, prompts: list[list[int]]) -> None:
    free = tokens(run(engine, prompts[5], max_tokens=24))
    stop = free[3]
    outputs = run(engine, prompts[5], max_tokens=24, min_tokens=12, stop_token_ids=(stop,))
    assert len(tokens(outputs)) >= 12
    assert stop not in tokens(outputs)[:12]


def test_eos_ends_unless_ignored(
    llama: Path, make_engine: MakeEngine, prompts: list[list[int]], tmp_path: Path
) -> None:
    free = tokens(run(make_engine(), prompts[5], max_tokens=24))
    for file in llama.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "generation_config.json").unlink(missing_ok=True)
    (tmp_path / "generation_config.json").write_text(f'{{"eos_token_id": [{free[5]}]}}')
    engine = make_engine(model=str(tmp_path))
    assert tokens(run(engine, prompts[5], max_tokens=24)) == free[: free.index(free[5]) + 1]
    assert tokens(run(engine, prompts[5], max_tokens=24, ignore_eos=True)) == free


def test_the_context_limit_ends_the_request(engine: LLMEngine, prompts: list[list[int]]) -> None:
    outputs = run(engine, prompts[5], max_tokens=1000)
    assert len(prompts[5]) + len(tokens(outputs)) == 64
    assert outputs[-1].finish_reason == "length"


def test_logprobs_are_of_the_raw_distribution(engine: LLMEngine, llama: Path, prompts: list[list[int]]) -> None:
    outputs = run(engine, prompts[5], max_tokens=12, temperature=2.0, top_k=5, seed=3, logprobs=4)
    drawn = tokens(outputs)
    scores = [score for output in outputs for score in output.logprobs or []]
    assert [score.token_id for score in scores] == drawn
    expected = _reference_logprobs(llama, prompts[5] + drawn)[len(prompts[5]) - 1 : -1]
    _check_scores(scores, drawn, expected, 4)


@pytest.mark.parametrize("fields", [{}, {"max_num_batched_tokens": 16, "max_num_seqs": 4}], ids=["whole", "chunked"])
def test_prompt_logprobs_are_those_of_teacher_forcing(
    make_engine: MakeEngine, llama: Path, prompts: list[list[int]], fields: dict[str, Any]
) -> None:
    engine = make_engine(**fields)
    engine.generate([prompts[2]], SamplingParams(max_tokens=1))  # a warm cache must not hide positions
    outputs = run(engine, prompts[2], max_tokens=3, prompt_logprobs=5)
    assert [output.prompt_logprobs is not None for output in outputs] == [True, False, False]
    first, *scores = outputs[0].prompt_logprobs or []
    assert first is None
    assert outputs[0].num_cached_tokens == 0
    _check_scores(scores, prompts[2][1:], _reference_logprobs(llama, prompts[2])[:-1], 5)


def test_each_request_gets_its_own_number_of_prompt_logprobs(make_engine: MakeEngine, prompts: list[list[int]]) -> None:
    engine = make_engine(kv_cache_memory_bytes=32 * 3 * 2 * 2 * 16 * 4 * 4, max_model_len=128)  # tight: preempts
    for index, prompt in enumerate(prompts):
        engine.add_request(str(index), prompt, SamplingParams(max_tokens=30, prompt_logprobs=index, logprobs=index))
    found = {}
    while engine.has_unfinished():
        for output in engine.step():
            assert all(len(score.top) == int(output.request_id) for score in output.logprobs or [])
            if output.prompt_logprobs is not None:
                assert output.request_id not in found, "delivered once"
                found[output.request_id] = output.prompt_logprobs
    assert engine.counters().num_preemptions > 0
    for index, prompt in enumerate(prompts):
        assert len(found[str(index)]) == len(prompt)
        assert all(len(score.top) == index for score in found[str(index)][1:])


def _check_scores(scores: list[Any], token_ids: list[int], expected: torch.Tensor, num_top: int) -> None:
    for score, token_id, row in zip(scores, token_ids, expected, strict=True):
        assert score.token_id == token_id
        assert score.logprob == pytest.approx(row[token_id].item(), abs=1e-3)
        assert score.rank == 1 + int((row > row[token_id]).sum())
        assert [i for i, _ in score.top] == row.topk(num_top).indices.tolist()
        assert [p for _, p in score.top] == pytest.approx(row.topk(num_top).values.tolist(), abs=1e-3)


@torch.inference_mode()
def _reference_logprobs(folder: Path, token_ids: list[int]) -> torch.Tensor:
    return torch.log_softmax(reference(folder)(torch.tensor([token_ids])).logits[0], -1)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ([], "empty"),
        ([0] * 64, "max_model_len"),
        ([1, VOCAB_SIZE], "outside the vocabulary"),
        ([-1], "outside the vocabulary"),
    ],
)
def test_a_bad_prompt_is_refused(engine: LLMEngine, prompt: list[int], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        engine.add_request("bad", prompt, SamplingParams())
    assert not engine.has_unfinished()


def test_an_id_in_use_is_refused(engine: LLMEngine) -> None:
    engine.add_request("one", [1], SamplingParams())
    with pytest.raises(RequestError, match="in use"):
        engine.add_request("one", [1], SamplingParams())
    engine.abort("one")


def test_a_long_prompt_needs_chunked_prefill(make_engine: MakeEngine, prompts: list[list[int]]) -> None:
    engine = make_engine(enable_chunked_prefill=False, max_num_batched_tokens=16)
    with pytest.raises(RequestError, match="chunked prefill"):
        engine.add_request("long", prompts[2], SamplingParams())


@pytest.mark.parametrize(
    "params",
    [
        {"max_tokens": 0},
        {"min_tokens": 17},
        {"min_tokens": -1},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": float("nan")},
        {"top_k": -1},
        {"seed": 2**64},
        {"logprobs": -1},
        {"prompt_logprobs": 10**6},
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=next(iter(params))):
        SamplingParams(**params)


def test_a_cache_too_small_for_one_sequence_is_an_error(make_engine: MakeEngine) -> None:
    with pytest.raises(CapacityError, match="kv_cache_memory_bytes"):
        make_engine(kv_cache_memory_bytes=10_000)


def test_more_context_than_the_checkpoint_allows_is_an_error(make_engine: MakeEngine) -> None:
    with pytest.raises(UnsupportedError, match="max_model_len 257"):
        make_engine(max_model_len=257)
