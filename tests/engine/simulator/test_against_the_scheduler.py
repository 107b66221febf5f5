"""The simulator and the bundled engine's own scheduler, step by step on the same requests."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from simulator_cases import traffic

from engine.bundled.block_manager import BlockManager
from engine.bundled.sampling_params import SamplingParams
from engine.bundled.scheduler import Scheduler
from engine.bundled.sequence import ANYBODY, Sequence, Standing
from engine.config import EngineConfig
from engine.simulator.oracle import ConstantOracle
from engine.simulator.settings import settings_of
from engine.simulator.simulate import simulate

WIDE = 16  # tokens a block


class Reality(NamedTuple):
    """Per request the steps after which its first and last token came, and what the prefix cache gave."""

    first: list[int]
    last: list[int]
    cached: list[int]
    num_preemptions: int


def really(
    config: EngineConfig,
    prompts: list[list[int]],
    rows: list[tuple[float, int, int]],
    blocks: int,
    standings: list[Standing] | None = None,
) -> Reality:
    """Steps of one second: a request that arrives during a step is seen by the next."""
    manager = BlockManager(blocks, config.block_size, enable_prefix_caching=config.enable_prefix_caching)
    scheduler = Scheduler(config, manager, max_model_len=10_000)
    sequences = [
        Sequence(str(i), prompt, SamplingParams(max_tokens=row[2]), seed=0, eos=(), standing=standing)
        for i, (prompt, row, standing) in enumerate(zip(prompts, rows, standings or [ANYBODY] * len(rows), strict=True))
    ]
    first, last, pending, now = [0] * len(rows), [0] * len(rows), list(range(len(rows))), 0
    while pending or scheduler.has_unfinished():
        while pending and rows[pending[0]][0] <= now:
            scheduler.add(sequences[pending.pop(0)])
        now += 1
        for item in scheduler.schedule():
            sequence, index = item.sequence, int(item.sequence.request_id)
            new = [5_000 + sequence.num_output_tokens * 100 + index] if item.draws else []
            scheduler.advance(item, new)
            if new:
                first[index] = first[index] or now
                if sequence.num_output_tokens == rows[index][2]:
                    last[index] = now
                    scheduler.finish(sequence)
    return Reality(first, last, [s.num_cached_tokens or 0 for s in sequences], scheduler.num_preemptions)


@st.composite
def cases(draw: st.DrawFn) -> tuple[EngineConfig, list[list[int]], list[tuple[float, int, int]]]:
    """Whole-second arrivals without a pause, prompts of blocks that are often shared."""
    config = EngineConfig(
        model="m",
        max_num_seqs=draw(st.integers(1, 8)),
        max_num_batched_tokens=draw(st.integers(16, 150)),
        enable_prefix_caching=draw(st.booleans()),
        block_size=WIDE,
    )
    prompts, rows = [], []
    for index in range(draw(st.integers(1, 12))):
        blocks = draw(st.lists(st.integers(0, 1), max_size=6))
        rest = draw(st.integers(1, 40))
        prompt = [token for block in blocks for token in [block] * WIDE] + [100 + index] * rest
        prompts.append(prompt)
        rows.append((float(index // 3), len(prompt), draw(st.integers(1, 30))))
    return config, prompts, rows


@hypothesis_settings(max_examples=200, deadline=None)
@given(cases(), st.booleans())
def test_tokens_come_after_the_same_steps(
    case: tuple[EngineConfig, list[list[int]], list[tuple[float, int, int]]], chunked: bool
) -> None:
    config, prompts, rows = case
    if not chunked:
        config = config.model_copy(update={"enable_chunked_prefill": False, "max_num_batched_tokens": 150})
    real = really(config, prompts, rows, blocks=1_000)
    hashes = [
        [hash(tuple(prompt[: end + WIDE])) for end in range(0, len(prompt) - WIDE + 1, WIDE)] for prompt in prompts
    ]
    load = traffic(rows, block_hashes=hashes, hash_block_tokens=WIDE)
    outcome = simulate(load, settings_of(config, num_blocks=1_000), ConstantOracle(seconds=1.0))
    assert np.round(outcome.first_token_s).astype(int).tolist() == real.first
    assert np.round(outcome.end_s).astype(int).tolist() == real.last
    assert outcome.num_cached_tokens.tolist() == real.cached


@hypothesis_settings(max_examples=200, deadline=None)
@given(cases(), st.sampled_from(["priority", "fair"]), st.data())
def test_policies_admit_in_the_same_order(
    case: tuple[EngineConfig, list[list[int]], list[tuple[float, int, int]]], policy: str, data: st.DataObject
) -> None:
    """A step holds any prompt beside every answer: else the engine lets a prompt of better rank stop answers."""
    config, prompts, rows = case
    config = EngineConfig.model_validate(
        config.model_dump() | {"scheduling_policy": policy, "max_num_batched_tokens": 150}
    )
    ranks = data.draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows)))
    clients = data.draw(st.lists(st.integers(0, min(2, len(rows) - 1)), min_size=len(rows), max_size=len(rows)))
    standings = [Standing(priority=rank, client=str(who)) for rank, who in zip(ranks, clients, strict=True)]
    config = config.model_copy(update={"enable_prefix_caching": False})
    real = really(config, prompts, rows, blocks=1_000, standings=standings)
    load = traffic(rows, priority=np.array(ranks), client=np.array(clients))
    outcome = simulate(load, settings_of(config, num_blocks=1_000), ConstantOracle(seconds=1.0))
    assert np.round(outcome.first_token_s).astype(int).tolist() == real.first
    assert np.round(outcome.end_s).astype(int).tolist() == real.last


def test_a_tight_cache_preempts_about_as_often() -> None:
    rng = np.random.default_rng(5)
    rows = [(float(i), int(rng.integers(20, 200)), int(rng.integers(20, 150))) for i in range(200)]
    prompts = [[i] * row[1] for i, row in enumerate(rows)]
    config = EngineConfig(model="m", max_num_seqs=32, max_num_batched_tokens=512, block_size=4)
    real = really(config, prompts, rows, blocks=480)
    outcome = simulate(traffic(rows), settings_of(config, num_blocks=480), ConstantOracle(seconds=1.0))
    assert real.num_preemptions > 20
    assert outcome.num_preemptions.sum() == pytest.approx(real.num_preemptions, rel=0.35)
    assert outcome.end_s.mean() == pytest.approx(np.mean(real.last), rel=0.05)
