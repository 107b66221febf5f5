"""Step telemetry: nothing computed is left out, and a parquet file holds it."""

import io
import tracemalloc
from collections.abc import Callable

import pyarrow.parquet as pq

from engine.bundled.llm_engine import LLMEngine, SamplingParams
from engine.bundled.step_log import StepLog, StepRecord, to_parquet

MakeEngine = Callable[..., LLMEngine]


def test_every_computed_and_drawn_token_is_counted_once(make_engine: MakeEngine, prompts: list[list[int]]) -> None:
    engine = make_engine(max_num_batched_tokens=16, enable_prefix_caching=False)
    outputs = engine.generate(prompts, SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True))
    records = engine.step_log.records()
    num_outputs = sum(map(len, outputs))
    assert sum(r.num_prefill_tokens for r in records) == sum(map(len, prompts))
    assert sum(r.num_new_tokens for r in records) == num_outputs
    assert sum(r.num_decode_seqs for r in records) == num_outputs - len(prompts)
    contexts = [
        len(prompt) + n for prompt, output in zip(prompts, outputs, strict=True) for n in range(len(output) - 1)
    ]
    assert sum(r.num_decode_context_tokens for r in records) == sum(contexts)
    assert all(r.duration_s > 0 for r in records)
    starts = [r.start_s for r in records]
    assert starts == sorted(starts)


def test_cached_prefixes_are_context_and_drafts_are_counted(make_engine: MakeEngine) -> None:
    engine = make_engine(speculative_config={"method": "ngram", "num_speculative_tokens": 2}, block_size=4)
    prompt = [1, 2, 3, 4] * 4
    for _ in range(2):
        engine.generate([prompt], SamplingParams(max_tokens=8, temperature=0.0))
    records, counters = engine.step_log.records(), engine.counters()
    assert sum(r.num_draft_tokens for r in records) == counters.num_draft_tokens > 0
    assert sum(r.num_prefill_context_tokens for r in records) == counters.prefix_cache_hits > 0


def test_only_the_latest_steps_are_kept() -> None:
    log = StepLog(10.0, max_steps=3)
    for step in range(5):
        log.add([], [], begin_s=11.0 + step, end_s=11.5 + step)
    assert [(r.start_s, r.duration_s) for r in log.records()] == [(3.0, 0.5), (4.0, 0.5), (5.0, 0.5)]
    assert len(log) == 3


def test_a_full_log_is_small() -> None:
    tracemalloc.start()
    log = StepLog(0.0)
    for step in range(2_000):
        log.add([], [], begin_s=step + 0.1, end_s=step + 0.5)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken < 10 * 2**20, "for 100,000 steps, and none later"


def test_gaps_are_known_while_work_is_left_and_arrivals_are_counted() -> None:
    log = StepLog(0.0)
    log.request_added(to_idle=True)
    log.request_added(to_idle=False)
    log.add([], [], begin_s=1.0, end_s=2.0)
    log.add([], [], begin_s=2.25, end_s=3.0)
    log.request_added(to_idle=True)
    log.add([], [], begin_s=5.0, end_s=6.0)
    assert [(r.gap_s, r.num_added_seqs) for r in log.records()] == [(0.25, 2), (None, 0), (None, 1)]


def test_steps_that_score_are_left_out(make_engine: MakeEngine, prompts: list[list[int]]) -> None:
    engine = make_engine()
    engine.generate(prompts, SamplingParams(max_tokens=2, temperature=0.0, logprobs=1))
    assert not engine.step_log.records()


def test_records_survive_parquet() -> None:
    records = [StepRecord(0.5, 0.25, 0.1, 1, 1, 2, 3, 4, 5, 6, 7), StepRecord(1.0, 0.5, None, 0, 0, 0, 0, 1, 1, 0, 1)]
    table = pq.read_table(io.BytesIO(to_parquet(records)))
    assert [StepRecord(**row) for row in table.to_pylist()] == records
    assert pq.read_table(io.BytesIO(to_parquet([]))).column_names == list(StepRecord._fields)
