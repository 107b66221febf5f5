"""Importers of text without times: each keeps the contract, and reads what its format means."""

import json
from pathlib import Path

from importer_contract import ImporterContract

from workloads.importers import import_workload


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def said(*texts: str) -> list[dict[str, str]]:
    return [{"from": "gpt" if i % 2 else "human", "value": text} for i, text in enumerate(texts)]


def messages(*texts: str) -> list[dict[str, object]]:
    return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)]


class TestShareGpt(ImporterContract):
    name = "sharegpt"
    suffix = ".json"
    good = json.dumps([{"id": "x", "conversations": said("a", "b", "c", "d")}])
    bad = (
        (
            json.dumps([{"id": "x", "conversations": [{"from": "nobody", "value": "a"}]}]),
            "line 1, column conversations",
        ),
        (json.dumps([{"id": "x", "conversations": said("a", "b")}, {"id": "y"}]), "line 2, column conversations"),
        ("[{", "line 1"),
    )

    def test_each_answer_is_a_request_with_all_that_went_before(self, tmp_path: Path) -> None:
        first, second = import_workload(self.write(tmp_path, self.good))
        assert (first.response, second.response) == ("b", "d")
        assert [m["content"] for m in second.chat_messages()] == ["a", "b", "c"]
        assert (second.parent_ids, second.turn) == ((first.request_id,), 1)

    def test_repeated_ids_are_told_apart_and_counted(self, tmp_path: Path) -> None:
        twice = [{"id": "x", "conversations": said("a", "b")}] * 2
        workload = import_workload(self.write(tmp_path, json.dumps(twice)))
        assert len({r.session_id for r in workload}) == 2
        assert any("1 conversation ids occur again" in loss for loss in workload.metadata.losses)


class TestFineTuning(ImporterContract):
    name = "fine-tuning"
    good = lines({"messages": messages("a", "b", "c", "d")})
    bad = (
        (lines({"messages": messages("a", "b")}, {"messages": "hi"}), "line 2, column messages"),
        (lines({"messages": [{"content": "no role"}]}), "line 1, column messages"),
    )

    def test_turns_of_weight_zero_are_context(self, tmp_path: Path) -> None:
        given = messages("a", "b", "c", "d")
        given[1]["weight"] = 0
        (request,) = import_workload(self.write(tmp_path, lines({"messages": given})))
        assert request.response == "d"
        assert all("weight" not in message for message in request.chat_messages())

    def test_of_a_preference_pair_the_preferred_answer_is_taken(self, tmp_path: Path) -> None:
        pair = {"input": {"messages": messages("a", "b", "c")}, "preferred_output": messages("x", "good")[1:]}
        workload = import_workload(
            self.write(tmp_path, lines(pair | {"non_preferred_output": messages("x", "bad")[1:]}))
        )
        assert [r.response for r in workload] == ["good"]
        assert any("not preferred in 1 pairs" in loss for loss in workload.metadata.losses)


def asked(name: str) -> dict[str, object]:
    body = {"model": "m", "messages": messages("hi"), "temperature": 0.2}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}


def answered(name: str) -> dict[str, object]:
    body = {"choices": [{"message": {"role": "assistant", "content": "yo"}, "finish_reason": "stop"}]}
    body |= {"usage": {"prompt_tokens": 4, "completion_tokens": 2}}
    return {"id": "b", "custom_id": name, "response": {"status_code": 200, "body": body}, "error": None}


class TestOpenAIBatch(ImporterContract):
    name = "openai-batch"
    good = lines(asked("a"), asked("b"))
    bad = (
        (lines(asked("a"), asked("a")), "line 2, column custom_id"),
        (lines(asked("a"), {"custom_id": "b"}), "line 2, column body"),
        (lines(answered("a")), "line 1, column body"),
    )

    def test_answers_in_a_second_file_are_joined(self, tmp_path: Path) -> None:
        (tmp_path / "in.jsonl").write_text(lines(asked("a"), asked("b")))
        (tmp_path / "out.jsonl").write_text(lines(answered("b"), answered("z")))
        workload = import_workload([tmp_path / "in.jsonl", tmp_path / "out.jsonl"])
        first, second = workload
        assert (first.status, first.response) == (None, None)
        assert (second.status, second.response, second.input_tokens, second.slo_class) == ("ok", "yo", 4, "offline")
        assert any(loss.startswith("1 answers belong to no request") for loss in workload.metadata.losses)
        assert any(loss.startswith("1 requests have no answer") for loss in workload.metadata.losses)
