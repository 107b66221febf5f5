"""Importers of gateway logs and traces with text: each keeps the contract, and reads what its format means."""

import json
from pathlib import Path
from typing import Any

import pytest
from importer_contract import ImporterContract
from workload_cases import TRACES

from workloads.importers import import_workload

ANSWER = "The capital of France is Paris."


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def span(name: str, start: int, end: int, messages: list[dict[str, str]], answer: str, **more: Any) -> dict[str, Any]:
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.input.messages": json.dumps(messages),
        "gen_ai.output.text": answer,
        "gen_ai.usage.prompt_tokens": 9,
        "gen_ai.usage.completion_tokens": 4,
    }
    times = {"start_time": f"2026-01-01T00:00:{start:02}", "end_time": f"2026-01-01T00:00:{end:02}"}
    return {"trace_id": "t", "span_id": name, **times, "attributes": attributes | more, "status": {"code": 1}}


def flat(*spans: dict[str, Any]) -> str:
    return json.dumps({"trace_id": "t", "spans": list(spans)})


CHAIN = (
    span("a", 0, 2, [user("capital?")], ANSWER),
    span("b", 3, 5, [user("capital?"), {"role": "assistant", "content": ANSWER}, user("more")], "Paris has a tower."),
)


class TestOtel(ImporterContract):
    name = "otel"
    suffix = ".json"
    good = flat(*CHAIN)
    bad = (
        (flat(CHAIN[0] | {"start_time": "noon"}), "line 1, column start_time"),
        (json.dumps({"trace_id": "t", "spans": [3]}), "line 1, column spans"),
    )

    def test_a_continued_conversation_waits_and_thinks(self, tmp_path: Path) -> None:
        first, second = import_workload(self.write(tmp_path, self.good))
        assert (first.session_id, first.output_tokens, first.temperature) == ("t", 4, 0.5)
        assert (second.parent_ids, second.think_s, second.turn) == (("a",), 1.0, 1)

    def test_a_call_waits_for_all_whose_answers_it_quotes(self, tmp_path: Path) -> None:
        one, two = "The first long answer.", "The second long answer."
        spans = (
            span("a", 0, 4, [user("x")], one),
            span("b", 1, 6, [user("y")], two),
            span("c", 8, 9, [user(f"compare {one} with {two}")], "Both are long answers."),
        )
        found = {r.request_id: r for r in import_workload(self.write(tmp_path, flat(*spans)))}
        assert found["b"].parent_ids == ()
        assert found["c"].parent_ids == ("a", "b")
        assert found["c"].think_s == 2.0

    def test_otlp_and_new_names_and_parts(self, tmp_path: Path) -> None:
        call = {"type": "tool_call", "id": "c1", "name": "f", "arguments": {"x": 1}}
        output = [{"role": "assistant", "parts": [call], "finish_reason": "tool_call"}]
        sent = [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}]
        texts = {
            "gen_ai.operation.name": "chat",
            "gen_ai.conversation.id": "conv",
            "gen_ai.input.messages": json.dumps(sent),
            "gen_ai.output.messages": json.dumps(output),
        }
        attributes: list[Any] = [{"key": key, "value": {"stringValue": value}} for key, value in texts.items()]
        attributes += [
            {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "100"}},
            {"key": "gen_ai.usage.output_tokens", "value": {"intValue": 7}},
            {"key": "gen_ai.response.finish_reasons", "value": {"arrayValue": {"values": [{"stringValue": "tool"}]}}},
        ]
        model_call = {"traceId": "5b", "spanId": "ee", "startTimeUnixNano": "1544712660000000000"}
        model_call |= {"endTimeUnixNano": 1544712661000000000, "attributes": attributes}
        tool = {"traceId": "5b", "spanId": "ff", "attributes": []}
        export = {"resourceSpans": [{"scopeSpans": [{"spans": [model_call, tool]}]}]}
        workload = import_workload(self.write(tmp_path, json.dumps(export)))
        (request,) = workload
        assert (request.session_id, request.input_tokens, request.output_tokens) == ("conv", 100, 7)
        assert (request.e2el_s, request.finish_reason) == (1.0, "tool")
        assert json.loads(request.messages or "") == [user("hi")]
        assert json.loads(request.response or "") == {"tool_calls": [{"name": "f", "arguments": '{"x":1}'}]}
        assert any("1 spans are no model calls" in loss for loss in workload.metadata.losses)

    @pytest.mark.skipif(not (TRACES / "otel").is_dir(), reason="no recorded trace here")
    def test_the_published_spans(self) -> None:
        workload = import_workload(TRACES / "otel")
        assert len(workload) == 28
        assert "closed_loop" not in workload.capabilities  # most files have no token counts


def spend(name: str, start: str, **changes: Any) -> dict[str, Any]:
    row = {"request_id": name, "call_type": "acompletion", "startTime": f"2026-01-01T00:00:{start}Z"}
    row |= {"endTime": "2026-01-01T00:00:09Z", "prompt_tokens": 5, "completion_tokens": 3, "model_group": "m"}
    return row | {"cache_hit": "False", "messages": {}, "response": {}, "session_id": "s", "team_id": "red"} | changes


class TestLiteLLM(ImporterContract):
    name = "litellm"
    good = lines(spend("a", "00"), spend("b", "10"), spend("c", "20", cache_hit="True"))
    bad = (
        (lines(spend("a", "00"), spend("b", "10", prompt_tokens=-1)), "line 2, column prompt_tokens"),
        (lines(spend("a", "xx")), "line 1, column startTime"),
    )

    def test_calls_of_the_gateway_cache_are_dropped_and_counted(self, tmp_path: Path) -> None:
        workload = import_workload(self.write(tmp_path, self.good))
        assert [r.request_id for r in workload] == ["a", "b"]
        assert any(loss.startswith("1 calls were answered by the gateway's cache") for loss in workload.metadata.losses)
        assert all(r.tenant not in (None, "red") for r in workload)
        assert [r.parent_ids for r in workload] == [(), ("a",)]

    def test_logging_payloads_have_parameters_and_epoch_times(self, tmp_path: Path) -> None:
        payload = {"id": "p", "trace_id": "t", "call_type": "completion", "status": "success", "model": "m"}
        payload |= {"startTime": 1700000000.5, "completionStartTime": 1700000001.0, "endTime": 1700000002.5}
        payload |= {"prompt_tokens": 5, "completion_tokens": 2, "messages": [user("hi")], "cache_hit": None}
        choice = {"message": {"role": "assistant", "content": "yo"}, "finish_reason": "stop"}
        payload |= {"model_parameters": {"temperature": 0.1, "max_tokens": 8}, "response": {"choices": [choice]}}
        (request,) = import_workload(self.write(tmp_path, lines(payload)))
        assert (request.temperature, request.max_tokens, request.response) == (0.1, 8, "yo")
        assert (request.ttft_s, request.e2el_s) == (0.5, 2.0)


def observation(name: str, start: str, **changes: Any) -> dict[str, Any]:
    row = {"id": name, "trace_id": "t", "type": "GENERATION", "start_time": f"2026-01-01 00:00:{start}.000000"}
    row |= {"end_time": "2026-01-01 00:00:05.000000", "usage_details": {"input": 5, "output": 2}}
    return row | {"input": [user("hi")], "output": "yo", "provided_model_name": "m", "latency": 1.5} | changes


class TestLangfuse(ImporterContract):
    name = "langfuse"
    good = lines(observation("a", "00"), observation("b", "10"), observation("c", "11", type="SPAN"))
    bad = (
        (lines(observation("a", "00"), observation("b", "10", latency=-1)), "line 2, column latency"),
        (lines(observation("a", "00", usage_details={"input": "many"})), "line 1, column input"),
    )

    def test_generations_are_the_requests(self, tmp_path: Path) -> None:
        workload = import_workload(self.write(tmp_path, self.good))
        first, second = workload
        assert (first.model, first.input_tokens, first.response, first.e2el_s) == ("m", 5, "yo", 1.5)
        assert second.parent_ids == ("a",)
        assert any("1 observations are no generations" in loss for loss in workload.metadata.losses)

    def test_scores_stay_with_what_they_judge(self, tmp_path: Path) -> None:
        judged = {"id": "s1", "trace_id": "t", "observation_id": "a", "name": "helpful", "value": 0.5}
        of_trace = {"id": "s2", "trace_id": "t", "name": "solved", "value": 1}
        stray = {"id": "s3", "trace_id": "elsewhere", "name": "solved", "value": 1}
        (tmp_path / "scores.jsonl").write_text(lines(judged, of_trace, stray))
        path = self.write(tmp_path, self.good)
        workload = import_workload([path, tmp_path / "scores.jsonl"])
        first, second = workload
        assert json.loads(first.extra or "") == {"scores": {"helpful": 0.5}, "trace_scores": {"solved": 1}}
        assert json.loads(second.extra or "") == {"trace_scores": {"solved": 1}}
        assert any("1 scores belong to no observation" in loss for loss in workload.metadata.losses)

    def test_objects_may_be_json_text_in_csv(self, tmp_path: Path) -> None:
        path = tmp_path / "log.csv"
        path.write_text(
            "id,trace_id,type,start_time,usage_details,input,output\n"
            'a,t,GENERATION,2026-01-01 00:00:00.5,"{""input"": 5, ""output"": 2}",hi,yo\n'
        )
        (request,) = import_workload(path)
        assert (request.input_tokens, request.output_tokens) == (5, 2)
