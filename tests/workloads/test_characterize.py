"""Profiles of workloads whose numbers are known."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from workload_cases import TRACES, chat, metadata, workload

from workloads.characterize import characterize, characterize_file, dispersion, interarrival_cv
from workloads.description import describe
from workloads.metadata import PrefixHashing
from workloads.parquet import write_workload
from workloads.request import Check, Request
from workloads.synthetic import SyntheticPrompts
from workloads.workload import Workload


def hashed(request_id: str, tokens: int, *hashes: int, session: str | None = None) -> Request:
    return Request(
        request_id=request_id, session_id=session, input_tokens=tokens, output_tokens=1, prefix_hashes=hashes
    )


def test_lengths_rates_and_sessions_are_counted() -> None:
    requests = [chat(str(i), i * 0.5, input_tokens=i + 1, output_tokens=2 * i + 1) for i in range(10)]
    requests += [chat("s0", 5.0, session_id="s"), chat("s1", 6.0, session_id="s", parent_ids=("s0",), think_s=0.25)]
    profile = characterize(workload(*requests))
    assert profile.num_requests == 12
    assert profile.arrivals is not None
    assert profile.arrivals.duration_s == 6.0
    assert profile.arrivals.rate_rps == 2.0
    assert profile.arrivals.peak_rps == 2
    assert profile.output_tokens is not None
    assert profile.output_tokens.max == 19
    assert profile.longest == 10 + 19
    assert profile.sessions is not None
    assert (profile.sessions.num_sessions, profile.sessions.num_requests, profile.sessions.turns.p50) == (1, 2, 2)
    assert profile.sessions.think_s is not None
    assert profile.sessions.think_s.mean == 0.25


def test_a_poisson_stream_has_unit_burstiness_at_every_scale() -> None:
    times = np.cumsum(np.random.default_rng(0).exponential(0.02, 400_000))
    assert interarrival_cv(times) == pytest.approx(1, abs=0.02)
    assert list(dispersion(times)) == ["1", "10", "60", "300"]
    assert dispersion(times)["10"] == pytest.approx(1, abs=0.15)


def test_a_regular_stream_has_none_and_bursts_have_much() -> None:
    # one request each second: every window holds the same count
    assert dispersion(np.arange(100.0)) == {"1": 0, "10": 0}
    # ten at once every ten seconds: windows of 1 s hold 10, 0, 0, ...; mean 1, variance (81 + 9) / 10 = 9
    bursts = np.repeat(np.arange(0.0, 1000.0, 10.0), 10)
    assert dispersion(np.append(bursts, 1000.0))["1"] == pytest.approx(9)


def test_quantised_stamps_are_spread_before_burstiness_is_measured() -> None:
    times = np.cumsum(np.random.default_rng(0).exponential(0.5, 4000)) // 3 * 3
    table = pa.table({"request_id": [str(i) for i in range(4000)], "arrival_s": times})
    profile = characterize(Workload(table, metadata(time_resolution_s=3.0)))
    assert profile.arrivals is not None
    assert profile.arrivals.interarrival_cv == pytest.approx(1, abs=0.05)
    assert any("steps of 3 s" in note for note in profile.notes)


def test_shared_hashes_count_as_hits_while_they_lead() -> None:
    # blocks of 4: b repeats a's first two blocks (8 of its 10 tokens); c repeats a's second alone, which does not lead
    prefix = PrefixHashing(block_size=4, tail_hashed=True)
    made = workload(hashed("a", 10, 1, 2, 3), hashed("b", 10, 1, 2, 9), hashed("c", 10, 7, 2, 8), prefix=prefix)
    profile = characterize(made)
    assert profile.prefix is not None
    assert profile.prefix.ideal_hit_ratio == pytest.approx(8 / 30)
    assert profile.prefix.basis == "recorded hashes in blocks of 4"


def test_hashes_of_a_session_are_not_shared_beyond_it() -> None:
    prefix = PrefixHashing(block_size=4, scope="session")
    requests = [hashed("a", 4, 1, session="x"), hashed("b", 4, 1, session="y"), hashed("c", 4, 1, session="x")]
    profile = characterize(workload(*requests, prefix=prefix))
    assert profile.prefix is not None
    assert profile.prefix.ideal_hit_ratio == pytest.approx(4 / 12)


def test_token_ids_and_text_share_whole_blocks() -> None:
    ids = tuple(range(40))  # two blocks of 16 and 8 more: 32 of the second request's 40 are hits
    made = workload(*(Request(request_id=name, prompt_token_ids=ids) for name in "ab"))
    profile = characterize(made)
    assert profile.prefix is not None
    assert profile.prefix.ideal_hit_ratio == pytest.approx(32 / 80)
    text = "x" * 100  # one chunk of 64 characters
    profile = characterize(workload(*(Request(request_id=name, prompt=text) for name in "ab")))
    assert profile.prefix is not None
    assert profile.prefix.ideal_hit_ratio == pytest.approx(64 / 200)
    assert "64 characters" in profile.prefix.basis


@pytest.mark.skipif(not (TRACES / "mooncake").is_dir(), reason="the public traces are not here")
def test_rehashing_synthetic_prompts_reproduces_a_traces_hit_ratio() -> None:
    with (TRACES / "mooncake" / "conversation_trace.jsonl").open() as file:
        rows = [json.loads(line) for _, line in zip(range(120), file, strict=False)]
    hashing = PrefixHashing(block_size=512, tail_hashed=True)
    made = [hashed(str(i), row["input_length"], *row["hash_ids"]) for i, row in enumerate(rows)]
    recorded = characterize(workload(*made, prefix=hashing)).prefix
    prompts = SyntheticPrompts(vocab_size=32_000, prefix=hashing)
    ids = [tuple(prompts.token_ids(request, request.input_tokens or 0)) for request in made]
    rehashed = characterize(workload(*(Request(request_id=str(i), prompt_token_ids=p) for i, p in enumerate(ids))))
    assert recorded is not None
    assert rehashed.prefix is not None
    assert rehashed.prefix.ideal_hit_ratio == pytest.approx(recorded.ideal_hit_ratio, abs=5e-4)


def test_groups_drawing_checks_and_responses_are_counted() -> None:
    checks = (Check(kind="exact", spec='"a"'), Check(kind="exact", spec='"b"'), Check(kind="numeric", spec="1"))
    made = workload(
        chat("a", 0.0, slo_class="chat", tenant="t", temperature=0.0, checks=checks, response="x", status="ok"),
        chat("b", 1.0, slo_class="chat", temperature=0.7, stop=("x",), max_tokens=5),
        chat("c", 2.0, slo_class="batch", adapter="lora"),
    )
    profile = characterize(made)
    assert dict(profile.slo_classes) == {"chat": 2, "batch": 1}
    assert (profile.drawing.greedy, profile.drawing.drawn, profile.drawing.unset) == (1, 1, 1)
    assert (profile.drawing.with_stop, profile.drawing.with_max_tokens) == (1, 1)
    assert dict(profile.checks) == {"exact": 1, "numeric": 1}
    assert (profile.num_responses, profile.num_tenants) == (1, 1)
    assert dict(profile.adapters) == {"lora": 1}
    assert dict(profile.statuses) == {"ok": 1}


def test_a_file_has_the_profile_of_its_workload(tmp_path: Path) -> None:
    requests = [chat(str(i), i * 0.1, session_id=f"s{i % 7}", tenant=f"t{i % 3}") for i in range(200)]
    written = write_workload(tmp_path / "w.parquet", requests, metadata())
    assert characterize_file(tmp_path / "w.parquet") == characterize(written)


def test_a_profile_is_json_and_words() -> None:
    profile = characterize(workload(*(chat(str(i), i * 0.1, session_id="s") for i in range(200))))
    assert json.loads(json.dumps(profile.as_json()))["num_requests"] == 200
    rows = dict(describe(profile))
    assert rows["requests"] == "200"
    assert rows["sessions"] == "1 holding 200 requests"
    assert rows["can drive"] == "open_loop, prefix"
    assert "Poisson: 1" in rows["burstiness"]


def test_an_empty_workload_has_a_profile() -> None:
    profile = characterize(workload())
    assert (profile.num_requests, profile.arrivals, profile.prefix, profile.sessions) == (0, None, None, None)
    assert dict(describe(profile))["arrivals"] == "not recorded"
