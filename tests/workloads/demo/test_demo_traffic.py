import random
from pathlib import Path

import numpy as np
import pytest

from workloads.demo.build import split, write_part
from workloads.demo.corpus import TRAINING_MIX
from workloads.demo.tasks import draw_conversation
from workloads.demo.tokenizer import build_tokenizer
from workloads.demo.traffic import REQUEST_MIX, Session, TrafficShape, draw_sessions
from workloads.parquet import read_workload


@pytest.fixture(scope="module")
def sessions() -> list[Session]:
    return draw_sessions(3, TrafficShape(), 100.0)


def test_the_same_seed_draws_the_same_sessions(sessions: list[Session]) -> None:
    assert draw_sessions(3, TrafficShape(), 100.0) == sessions


def test_requests_come_at_the_asked_rate_and_in_the_asked_mix(sessions: list[Session]) -> None:
    counts = dict.fromkeys(REQUEST_MIX, 0)
    for session in sessions:
        counts[session.conversation.task] += len(session.arrivals_s)
    total = sum(counts.values())
    assert total / 100.0 == pytest.approx(TrafficShape().requests_per_s, rel=0.2)
    for task, share in REQUEST_MIX.items():
        assert counts[task] / total == pytest.approx(share, abs=0.06)


def test_sessions_come_in_bursts(sessions: list[Session]) -> None:
    starts = [session.arrivals_s[0] for session in sessions]
    counts, _ = np.histogram(starts, bins=np.arange(0.0, 100.0, 0.5))
    assert counts.var() / counts.mean() > 1.5  # a Poisson process has 1


def test_turns_of_a_session_are_apart_by_at_least_the_think_time(sessions: list[Session]) -> None:
    for session in sessions:
        assert session.thinks_s[0] == 0.0
        gaps = np.diff(session.arrivals_s)
        assert all(gap >= think for gap, think in zip(gaps, session.thinks_s[1:], strict=True))


def test_held_out_sessions_are_other_and_later(sessions: list[Session]) -> None:
    train, held_out = split(sessions, 60.0)
    assert {s.number for s in train.sessions}.isdisjoint(s.number for s in held_out.sessions)
    assert max(s.arrivals_s[0] for s in train.sessions) < min(s.arrivals_s[0] for s in held_out.sessions)


def test_the_written_file_reads_back_as_a_workload(sessions: list[Session], tmp_path: Path) -> None:
    rng = random.Random(1)
    drawn = [draw_conversation(rng, TRAINING_MIX) for _ in range(200)]
    tokenizer = build_tokenizer([message["content"] for item in drawn for message in item.full_messages()])
    train, _ = split(sessions, 20.0)
    write_part(tmp_path / "workload.parquet", train, tokenizer)
    table = read_workload(tmp_path / "workload.parquet").table
    assert table.num_rows == sum(len(session.arrivals_s) for session in train.sessions)
    assert table["arrival_s"][0].as_py() == 0.0
    assert max(table["input_tokens"].to_pylist()) + 160 <= 1024
    assert max(table["output_tokens"].to_pylist()) <= 160
