"""When tokens came: chunks, counts, texts."""

from __future__ import annotations

from mock_server import MockServer
from replay_cases import replay
from workload_cases import chat, workload


def test_tokens_of_one_chunk_share_its_time(server: MockServer) -> None:
    server.behaviour.tokens_per_chunk = 4
    server.behaviour.gap_s = 0.02
    record = replay(server, workload(chat("a", 0.0, output_tokens=6))).records[0]
    assert len(record.token_times_s) == 6
    assert len(set(record.token_times_s)) == 2
    assert record.token_times_s[0] == record.token_times_s[3] < record.token_times_s[4] == record.token_times_s[5]


def test_chunks_of_several_tokens_without_ids_are_spread_and_reported(server: MockServer) -> None:
    server.behaviour.sends_token_ids = False
    server.behaviour.tokens_per_chunk = 3
    result = replay(server, workload(chat("a", 0.0, output_tokens=6)))
    assert result.records[0].output_tokens == 6
    assert any("spread evenly" in note for note in result.notes)


def test_text_is_kept_only_when_asked_for(server: MockServer) -> None:
    what = workload(chat("a", 0.0))
    assert replay(server, what).responses == {}
    kept = replay(server, what, keep_text=True).responses["a"]
    assert kept.text == "t0 t1 t2 "
    assert kept.token_ids == (0, 1, 2)
