"""Importers of traces without text: each keeps the contract, and reads what its format means."""

import json
from pathlib import Path

import pytest
from importer_contract import ImporterContract
from workload_cases import TRACES

from workloads.characterize import characterize
from workloads.importers import import_workload


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


MOONCAKE = (
    {"timestamp": 5, "input_length": 600, "output_length": 7, "hash_ids": [0, 1]},
    {"timestamp": 3005, "input_length": 512, "output_length": 8, "hash_ids": [0]},
)


class TestMooncake(ImporterContract):
    name = "mooncake"
    good = lines(*MOONCAKE)
    bad = (
        (lines(MOONCAKE[0], MOONCAKE[1] | {"input_length": -1}), "line 2, column input_length"),
        (lines(MOONCAKE[0], MOONCAKE[1] | {"hash_ids": ["a"]}), "line 2, column hash_ids"),
        (lines(MOONCAKE[0]) + '{"timestamp": NaN, "input_length": 1}\n', "line 2, column timestamp"),
        ("{\n", "line 1"),
    )

    def test_milliseconds_become_seconds(self, tmp_path: Path) -> None:
        workload = import_workload(self.write(tmp_path, self.good))
        assert workload.numbers("arrival_s").tolist() == [0.0, 3.0]
        assert [r.prefix_hashes for r in workload] == [(0, 1), (0,)]

    def test_coarse_stamps_are_found_and_told(self, tmp_path: Path) -> None:
        rows = [MOONCAKE[0] | {"timestamp": 3000 * (i // 9)} for i in range(200)]
        metadata = import_workload(self.write(tmp_path, lines(*rows))).metadata
        assert metadata.time_resolution_s == 3.0
        assert any("multiples of 3 s" in loss for loss in metadata.losses)

    def test_sessions_of_aiperf_are_chains_with_delays(self, tmp_path: Path) -> None:
        rows = [MOONCAKE[0] | {"session_id": "s"}, MOONCAKE[1] | {"session_id": "s", "delay": 1500}]
        first, second = import_workload(self.write(tmp_path, lines(*rows)))
        assert (second.parent_ids, second.turn, second.think_s) == ((first.request_id,), 1, 1.5)

    @pytest.mark.skipif(not (TRACES / "mooncake").is_dir(), reason="no recorded trace here")
    def test_the_published_conversation_trace(self) -> None:
        workload = import_workload(TRACES / "mooncake" / "conversation_trace.jsonl")
        profile = characterize(workload)
        assert len(workload) == 12_031
        assert workload.metadata.time_resolution_s == 3.0
        assert profile.prefix is not None
        assert profile.prefix.ideal_hit_ratio == pytest.approx(0.374, abs=0.001)


TIMED = (
    {"timestamp": 1.5, "input_length": 33, "output_length": 7, "hash_ids": [0, 1, 2]},
    {"timestamp": 2.0, "input_length": 16, "output_length": 8, "hash_ids": [0]},
)


class TestTimedTrace(ImporterContract):
    name = "vllm-timed-trace"
    good = lines(*TIMED)
    bad = (
        (lines(TIMED[0], TIMED[1] | {"output_length": None}), "line 2, column output_length"),
        (lines(TIMED[0], TIMED[1] | {"timestamp": "noon"}), "line 2, column timestamp"),
        (lines(TIMED[0] | {"hash_ids": list(range(9))}), "line 1, column hash_ids"),
    )

    def test_the_block_size_is_what_the_hashes_fit_and_said_to_be_a_guess(self, tmp_path: Path) -> None:
        metadata = import_workload(self.write(tmp_path, self.good)).metadata
        assert metadata.prefix is not None
        assert metadata.prefix.block_size == 16
        assert sum("does not say" in loss for loss in metadata.losses) == 2


def chat(number: int, parent: int, **changes: object) -> dict[str, object]:
    row = {"chat_id": number, "parent_chat_id": parent, "timestamp": 10.0 * number, "input_length": 20}
    return row | {"output_length": 5, "type": "text", "turn": 1, "hash_ids": [number, 99]} | changes


class TestBailian(ImporterContract):
    name = "qwen-bailian"
    good = lines(chat(1, -1), chat(2, 1, turn=2), chat(3, 2, turn=3))
    bad = (
        (lines(chat(1, -1), chat(2, 1, timestamp=None)), "line 2, column timestamp"),
        (lines(chat(1, -1, chat_id=-4)), "line 1, column chat_id"),
    )

    def test_parents_make_sessions_named_after_their_root(self, tmp_path: Path) -> None:
        found = list(import_workload(self.write(tmp_path, self.good)))
        assert [r.session_id for r in found] == ["1", "1", "1"]
        assert [r.parent_ids for r in found] == [(), ("1",), ("2",)]
        assert [r.turn for r in found] == [0, 1, 2]
        assert found[1].think_s == 10.0

    def test_a_parent_that_is_not_there_is_let_go_and_counted(self, tmp_path: Path) -> None:
        workload = import_workload(self.write(tmp_path, lines(chat(2, 1), chat(3, 2))))
        assert any(loss.startswith("1 chats name a parent") for loss in workload.metadata.losses)


BURSTGPT = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
5,a,2.5,ChatGPT,472,18,490,Conversation log
9,,1.0,GPT-4,1087,0,1087,API log
45,a,3,ChatGPT,417,276,693,Conversation log
46,a,3,ChatGPT,417,276,693,Conversation log
"""


class TestBurstGpt(ImporterContract):
    name = "burstgpt"
    suffix = ".csv"
    good = BURSTGPT
    bad = (
        (BURSTGPT.replace("472", "-1"), "line 2, column Request tokens"),
        (BURSTGPT.replace("\n9,", "\nnan,"), "line 3, column Timestamp"),
    )

    def test_turns_wait_for_those_that_have_ended(self, tmp_path: Path) -> None:
        workload = import_workload(self.write(tmp_path, self.good))
        first, failed, second, third = workload
        assert (failed.status, failed.session_id) == ("error", None)
        assert (second.parent_ids, second.think_s) == ((first.request_id,), 37.5)
        assert third.parent_ids == ()
        assert any(loss.startswith("1 turns start before") for loss in workload.metadata.losses)


VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens,pd_ratio\n1.5,374,44,8.5\n2.5,396,109,3.6\n"


class TestVidur(ImporterContract):
    name = "vidur"
    suffix = ".csv"
    good = VIDUR
    bad = (
        (VIDUR.replace("396", "x"), "line 3, column num_prefill_tokens"),
        (VIDUR.replace("1.5,", "inf,"), "line 2, column arrived_at"),
    )

    def test_without_arrivals_it_says_so(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "num_prefill_tokens,num_decode_tokens\n3,4\n5,6\n")
        workload = import_workload(path)
        assert [r.arrival_s for r in workload] == [None, None]
        assert any("2 rows have no arrived_at" in loss for loss in workload.metadata.losses)


def step(t: float, **changes: object) -> dict[str, object]:
    row = {"t": t, "type": "n", "model": "m", "in": 130, "out": 9, "hash_ids": [1, 2], "stop": "tool_use"}
    return row | {"api_time": 2.0, "think_time": 3.0} | changes


def session(name: str, *steps: object) -> dict[str, object]:
    return {"id": name, "block_size": 64, "hash_id_scope": "local", "requests": list(steps)}


class TestAgentSessions(ImporterContract):
    name = "agent-sessions"
    suffix = ".json"
    good = json.dumps(session("s", step(0.0), step(5.0), step(10.0, stop="end_turn")))
    bad = (
        (json.dumps(session("s", step(0.0, **{"in": "many"}))), "line 1, column in"),
        (json.dumps(session("s", 3)), "line 1, column requests"),
        (json.dumps(session("s", step(0.0)) | {"block_size": 0}), "line 1, column block_size"),
    )

    def test_each_step_waits_for_the_one_before_and_thinks(self, tmp_path: Path) -> None:
        found = list(import_workload(self.write(tmp_path, self.good)))
        assert [r.parent_ids for r in found] == [(), ("s#0",), ("s#1",)]
        assert [r.think_s for r in found] == [None, 3.0, 3.0]
        assert [r.finish_reason for r in found] == ["tool_calls", "tool_calls", "stop"]

    def test_a_subagent_waits_for_its_caller_and_the_caller_goes_on(self, tmp_path: Path) -> None:
        nested = {"type": "subagent", "agent_id": "sub", "requests": [step(1.0), step(2.0)]}
        found = list(import_workload(self.write(tmp_path, json.dumps(session("s", step(0.0), nested, step(9.0))))))
        assert [r.parent_ids for r in found] == [(), ("s#0",), ("s#1",), ("s#0",)]
        assert json.loads(found[1].extra or "")["agent_id"] == "sub"

    def test_a_folder_is_one_workload_without_a_common_clock(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (tmp_path / f"{name}.json").write_text(json.dumps(session(name, step(0.0), step(5.0))))
        workload = import_workload(tmp_path)
        assert [r.session_id for r in workload] == ["a", "a", "b", "b"]
        assert all(r.arrival_s is None for r in workload)
        assert len(workload.metadata.source.files) == 2
        assert any("no common clock" in loss for loss in workload.metadata.losses)

    @pytest.mark.skipif(not (TRACES / "agent_sessions").is_dir(), reason="no recorded trace here")
    def test_the_published_sessions(self) -> None:
        workload = import_workload(TRACES / "agent_sessions")
        assert len(workload) == 1097
        assert len({r.session_id for r in workload}) == 40
        assert "closed_loop" in workload.capabilities


LICENSES = {
    "Attribution 4.0 International\n===": "CC-BY-4.0",
    "  Apache License\n  Version 2.0, ": "Apache-2.0",
    "Ours": "see",
}


@pytest.mark.parametrize("text", LICENSES)
def test_a_licence_is_what_the_file_beside_the_data_says(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(lines(*MOONCAKE))
    assert import_workload(path).metadata.source.license == "unknown: see the source"
    (tmp_path / "LICENSE").write_text(text)
    assert (import_workload(path).metadata.source.license or "").startswith(LICENSES[text])
