"""Two ranks say what one says, and a rank that goes takes the engine with it, in words."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.bundled.errors import CheckpointError, UnsupportedError
from engine.bundled.llm_engine import LLMEngine, SamplingParams
from engine.bundled.model_config import load_model_config
from engine.bundled.parallel.communication import decode, encode
from engine.bundled.parallel.ranks import RankDiedError
from engine.bundled.parallel.shard import Shard

MakeEngine = Callable[..., LLMEngine]
GREEDY = SamplingParams(max_tokens=24, temperature=0.0)
DRAWN = SamplingParams(max_tokens=24, temperature=0.9, top_p=0.9, seed=5)


@contextmanager
def two_ranks(make_engine: MakeEngine, **fields: Any) -> Iterator[LLMEngine]:
    with closing(make_engine(tensor_parallel_size=2, dtype="float32", **fields)) as engine:
        yield engine


def ranks_of_this_process() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "engine.bundled.parallel.worker" in " ".join(child.cmdline())]


def test_two_ranks_say_what_one_says(make_engine: MakeEngine, prompts: list[list[int]]) -> None:
    one = make_engine(dtype="float32", enforce_eager=True)
    with two_ranks(make_engine) as two:
        assert len(ranks_of_this_process()) == 1
        for params in (GREEDY, DRAWN):
            assert two.generate(prompts, params) == one.generate(prompts, params)
    assert ranks_of_this_process() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3}},
        {"enable_prefix_caching": False, "max_num_batched_tokens": 16},
        {"quantization": {"kv_cache": "int8"}},
        {"quantization": {"overrides": {"*.o_proj": "int4_g32_asym"}}},  # groups of 32 end where its ranks' parts do
    ],
    ids=["speculation", "chunks", "int8 cache", "int4 weights"],
)
def test_every_other_technique_works_over_ranks(
    make_engine: MakeEngine, prompts: list[list[int]], fields: dict[str, Any]
) -> None:
    one = make_engine(dtype="float32", enforce_eager=True, **fields)
    with two_ranks(make_engine, **fields) as two:
        assert two.generate(prompts, GREEDY) == one.generate(prompts, GREEDY)


def test_codes_on_the_wire_change_little(make_engine: MakeEngine, prompts: list[list[int]]) -> None:
    params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)

    def scores(engine: LLMEngine) -> torch.Tensor:
        engine.add_request("one", prompts[2], params)
        [output] = engine.step()
        assert output.prompt_logprobs is not None
        return torch.tensor([score.logprob for score in output.prompt_logprobs if score is not None])

    with two_ranks(make_engine) as whole:
        exact = scores(whole)
    with two_ranks(make_engine, quantization={"communication": "int8"}) as coded:
        rough = scores(coded)
    assert not torch.equal(exact, rough)
    assert (exact - rough).abs().mean() < 0.1


def test_a_rank_that_dies_ends_the_engine_with_a_sentence(make_engine: MakeEngine, prompts: list[list[int]]) -> None:
    with two_ranks(make_engine) as engine:
        engine.generate(prompts[:1], GREEDY)
        engine.check_alive()
        [rank] = ranks_of_this_process()
        os.kill(rank.pid, signal.SIGKILL)
        with pytest.raises(RankDiedError, match=r"rank 1 \(killed by signal 9\) of 2 has gone"):
            engine.generate(prompts, GREEDY)
        with pytest.raises(RankDiedError):
            engine.check_alive()


def test_a_model_that_does_not_divide_is_refused_and_nobody_stays(make_engine: MakeEngine) -> None:
    with pytest.raises(UnsupportedError, match=r"tensor_parallel_size 3 does not divide .* Use 2"):
        make_engine(tensor_parallel_size=3)
    with pytest.raises(CheckpointError):
        make_engine(tensor_parallel_size=2, model="/nowhere")
    assert ranks_of_this_process() == []


@pytest.mark.parametrize("rank_count", [1, 2])
def test_parts_make_the_whole(rank_count: int, llama: Path) -> None:
    config = load_model_config(llama)
    name = "model.layers.0.self_attn"
    shards = [Shard(rank=rank, size=rank_count) for rank in range(rank_count)]
    rows, columns = torch.randn(config.num_heads * config.head_dim, 5), torch.randn(5, config.intermediate_size)
    assert torch.equal(torch.cat([shard.part(f"{name}.q_proj.weight", rows) for shard in shards]), rows)
    assert torch.equal(torch.cat([shard.part("mlp.down_proj.weight", columns) for shard in shards], 1), columns)
    whole = torch.randn(7)
    assert torch.equal(sum(shard.part(f"{name}.o_proj.bias", whole) for shard in shards), whole)  # type: ignore[arg-type]
    assert all(shard.local(config).num_heads * rank_count == config.num_heads for shard in shards)


@given(width=st.integers(1, 300), scale=st.floats(1e-3, 1e3))
def test_codes_are_within_half_a_scale(width: int, scale: float) -> None:
    x = torch.randn(3, width) * scale
    codes, scales = encode(x)
    error = (decode(codes, scales, width=width) - x).abs()
    assert codes.dtype == torch.int8
    assert (error <= scales.amax() * 0.5001).all()
