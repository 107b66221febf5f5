"""Importers of what other load generators replay: each keeps the contract, and reads what its format means."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from importer_contract import ImporterContract

from workloads.importers import import_workload


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


SESSION = {"session_id": "s", "turns": [{"text": "a", "timestamp": 500}, {"text": "b", "delay": 1500}]}


class TestAiperf(ImporterContract):
    name = "aiperf"
    good = lines(SESSION)
    bad = (
        (lines(SESSION, {"session_id": "t", "turns": [{"delay": 1}]}), "line 2, column text"),
        (lines({"turns": 3}), "line 1, column turns"),
        (lines({"text": "a", "timestamp": -1}), "line 1, column timestamp"),
    )

    def test_turns_wait_and_think_and_lack_the_answers(self, tmp_path: Path) -> None:
        workload = import_workload(self.write(tmp_path, self.good))
        first, second = workload
        assert (second.parent_ids, second.think_s, second.turn) == ((first.request_id,), 1.5, 1)
        assert [m["content"] for m in second.chat_messages()] == ["a", "b"]
        assert any(loss.startswith("1 later turns do not hold the answers") for loss in workload.metadata.losses)

    def test_single_turns_have_times_in_milliseconds(self, tmp_path: Path) -> None:
        rows = ({"text": "a", "timestamp": 1000, "image": "x.png"}, {"texts": ["b", "c"], "timestamp": 3500})
        workload = import_workload(self.write(tmp_path, lines(*rows)))
        assert [r.arrival_s for r in workload] == [0.0, 2.5]
        assert any("of 1 turns were left out" in loss for loss in workload.metadata.losses)


def call(start: int, **changes: Any) -> dict[str, Any]:
    row = {"timestamp_start_unix_ms": 1_700_000_000_000 + start, "input_tokens": 40, "output_tokens": 3}
    row |= {"total_hashes": ["x", "y"], "block_size": 16, "provided_session_id": "s", "duration_e2e_ms": 500.0}
    return row | {"request_canceled": False, "org_id": "acme", "model_name": "m"} | changes


class TestBaseten(ImporterContract):
    name = "baseten"
    suffix = ".parquet"
    good = json.dumps([call(0), call(2000, total_hashes=["x", "z", "w"])])
    bad = (
        (json.dumps([call(0), call(1, input_tokens=-1)]), "line 2, column input_tokens"),
        (json.dumps([call(0, duration_e2e_ms=-1.0)]), "line 1, column duration_e2e_ms"),
    )

    def write(self, folder: Path, text: str) -> Path:
        path = folder / f"log{self.suffix}"
        pq.write_table(pa.Table.from_pylist(json.loads(text)), path)
        return path

    def test_hashes_become_dense_and_sessions_chains(self, tmp_path: Path) -> None:
        first, second = import_workload(self.write(tmp_path, self.good))
        assert (first.prefix_hashes, second.prefix_hashes) == ((0, 1), (0, 2, 3))
        assert second.parent_ids == (first.request_id,)
        assert abs((second.think_s or 0) - 1.5) < 1e-6
        assert first.tenant not in (None, "acme")

    def test_hashes_that_do_not_fit_are_left_out_and_counted(self, tmp_path: Path) -> None:
        rows = [call(0, total_hashes=["x"] * 9), call(1, request_canceled=True)]
        workload = import_workload(self.write(tmp_path, json.dumps(rows)))
        assert [r.prefix_hashes for r in workload] == [None, (0, 1)]
        assert [r.status for r in workload] == ["ok", "cancelled"]
        assert any("hashes of 1 requests" in loss for loss in workload.metadata.losses)


def row(text: str, **changes: Any) -> dict[str, Any]:
    return {"prompt": text, "prompt_tokens_count": 4, "output_tokens_count": 2, "relative_timestamp": 1.5} | changes


class TestGuideLLM(ImporterContract):
    name = "guidellm"
    good = lines(row("a"), row("b", system_prompt="be brief", relative_timestamp=2.0))
    bad = (
        (lines(row("a"), row("b", output_tokens_count=-2)), "line 2, column output_tokens_count"),
        (lines(row("a", relative_timestamp="soon")), "line 1, column relative_timestamp"),
        (lines(row("a"), {"output_tokens_count": 1}), "line 2, column prompt"),
        (lines(row("a", conversation_turns=2)), "line 1, column conversation_turns"),
        (lines(row("a", prompt_1=3)), "line 1, column prompt"),
    )

    def test_a_system_prompt_is_a_message(self, tmp_path: Path) -> None:
        first, second = import_workload(self.write(tmp_path, self.good))
        assert (first.input_tokens, first.output_tokens, second.arrival_s) == (4, 2, 0.5)
        assert [m["role"] for m in second.chat_messages()] == ["system", "user"]

    def test_numbered_columns_are_the_turns_of_a_session(self, tmp_path: Path) -> None:
        given = row("a", prompt_1="b", prompt_tokens_count_1=3, output_tokens_count_1=5, requeue_delay_1=1.5)
        first, second = import_workload(self.write(tmp_path, lines(given)))
        assert (first.turn, first.input_tokens, first.arrival_s) == (0, 4, 0.0)
        assert (second.parent_ids, second.session_id, second.think_s) == ((first.request_id,), "0", 1.5)
        assert (second.input_tokens, second.output_tokens, second.arrival_s) == (4 + 3, 5, None)
        assert [m["content"] for m in second.chat_messages()] == ["a", "b"]

    def test_turns_may_be_a_list(self, tmp_path: Path) -> None:
        turns = ["a", {"prompt": "b", "prompt_tokens_count": 3, "output_tokens_count": 2}]
        given = {"conversation_turns": turns, "system_prompt": "be brief", "relative_timestamp": 7.0}
        workload = import_workload(self.write(tmp_path, lines(given, given)))
        assert [r.request_id for r in workload] == ["0#0", "1#0", "0#1", "1#1"]  # later turns have no arrival
        last = list(workload)[-1]
        assert [m["role"] for m in last.chat_messages()] == ["system", "user", "user"]
        assert any("2 later turns do not hold the answers" in loss for loss in workload.metadata.losses)
