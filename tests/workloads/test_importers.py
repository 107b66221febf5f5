"""Each importer keeps the contract, and reads what its format means."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from importer_contract import ImporterContract
from tokenizers import Tokenizer, models, pre_tokenizers
from workload_cases import TRACES

from workloads.errors import WorkloadError
from workloads.importers import import_workload
from workloads.request import Request
from workloads.tokenizer import TokenCounter
from workloads.workload import Workload

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8
2023-11-16 18:17:04.0319601,0,0
"""


class TestAzure(ImporterContract):
    name = "azure"
    suffix = ".csv"
    good = AZURE
    bad = (
        (AZURE.replace("3180", "many"), "line 3, column ContextTokens"),
        (AZURE.replace("3180", "-3"), "line 3, column ContextTokens"),
        (AZURE.replace("2023-11-16 18:17:04.0319600", "noon"), "line 3, column TIMESTAMP"),
        ("a,b\n1,2\n", "line 1"),
    )

    def test_stamps_keep_their_seventh_decimal(self, tmp_path: Path) -> None:
        workload = import_workload(self.write(tmp_path, AZURE))
        # 04.0319600 - 03.9799600 = 0.052; one tick more is 0.0520001
        assert workload.numbers("arrival_s").tolist() == pytest.approx([0, 0.052, 0.0520001], abs=1e-12)
        assert workload.metadata.start_time == "2023-11-16T18:17:03.9799600"
        assert [request.status for request in workload] == [None, None, "error"]

    def test_the_later_traces_stamps_and_images_are_read(self, tmp_path: Path) -> None:
        text = "TIMESTAMP,ContextTokens,GeneratedTokens,NumImages\n"
        text += "2024-05-10 00:00:00.009930+00:00,5,1,0\n2024-05-10 00:00:01+00:00,6,2,3\n"
        requests = list(import_workload(self.write(tmp_path, text)))
        assert requests[1].arrival_s == pytest.approx(0.99007)
        assert requests[1].extra == '{"n_images":3}'

    @pytest.mark.skipif(not (TRACES / "azure2023").is_dir(), reason="the public traces are not here")
    def test_the_code_trace_has_its_published_figures(self) -> None:
        workload = import_workload(TRACES / "azure2023" / "AzureLLMInferenceTrace_code.csv")
        inputs, outputs = workload.numbers("input_tokens"), workload.numbers("output_tokens")
        assert len(workload) == 8819
        assert len(workload) / np.ptp(workload.numbers("arrival_s")) == pytest.approx(2.57, abs=0.005)
        assert [round(q) for q in np.percentile(inputs, [50, 99], method="inverted_cdf")] == [1469, 7436]
        assert [round(q) for q in np.percentile(outputs, [50, 99], method="inverted_cdf")] == [13, 252]
        assert next(iter(workload)).tenant == "code"
        assert workload.capabilities == ("open_loop",)


class TestVllmCustom(ImporterContract):
    name = "vllm-custom"
    good = '{"prompt": "one two", "output_tokens": 5}\n\n{"prompt": "three", "topic": "x"}\n'
    bad = (
        ('{"prompt": "a"}\n{"prompt": 3}\n', "line 2, column prompt"),
        ('{"prompt": "a", "output_tokens": -1}\n', "line 1, column output_tokens"),
        ('{"prompt": "a"\n', "line 1"),
        ("[]\n", "line 1"),
    )

    def test_what_the_format_lacks_is_said(self, tmp_path: Path) -> None:
        workload = import_workload(self.write(tmp_path, self.good))
        assert [r.output_tokens for r in workload] == [5, None]
        assert list(workload)[1].extra == '{"topic":"x"}'
        assert any("no arrivals" in loss for loss in workload.metadata.losses)
        assert any("--tokenizer" in loss for loss in workload.metadata.losses)
        assert any("1 requests have no output_tokens" in loss for loss in workload.metadata.losses)

    def test_a_tokenizer_counts(self, tmp_path: Path, words: TokenCounter) -> None:
        workload = import_workload(self.write(tmp_path, self.good), tokenizer=words)
        assert [r.input_tokens for r in workload] == [2, 1]
        assert workload.metadata.vocab_size == words.vocab_size


@pytest.fixture
def words(tmp_path: Path) -> TokenCounter:
    """One token a word."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "one": 1, "two": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    template = "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}<assistant>"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return TokenCounter(tmp_path)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def pair(number: int, messages: list[dict[str, str]], reply: str, **changes: Any) -> dict[str, Any]:
    """A chat pair at 10 · number seconds that took 2 s."""
    request = {"model": "m", "messages": messages} | changes.pop("request", {})
    choice = {"index": 0, "message": assistant(reply), "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 3}}
    response = {"id": f"r{number}", "created": 1_700_000_000 + 10 * number, "choices": [choice], "usage": usage}
    line = {"ts": 1_700_000_000.5 + 10 * number, "request": request, "response": response, "latency_ms": 2000}
    return line | changes


def lines(*pairs: dict[str, Any]) -> str:
    return "".join(json.dumps(p) + "\n" for p in pairs)


CONVERSATION = (
    pair(0, [user("one")], "two"),
    pair(1, [user("other")], "thing"),
    pair(2, [user("one"), assistant("two"), user("three")], "four"),
    pair(3, [user("one"), assistant("two"), user("three"), assistant(" four\n"), user("five")], "six"),
)


class TestOpenAIPairs(ImporterContract):
    name = "openai-pairs"
    good = lines(*CONVERSATION)
    bad = (
        (lines(CONVERSATION[0]) + '{"request": 3, "response": {}}\n', "line 2, column request"),
        (lines(CONVERSATION[0] | {"response": "text"}), "line 1, column response"),
        (lines(CONVERSATION[0] | {"ts": "noon"}), "line 1, column ts"),
        (lines(CONVERSATION[0] | {"latency_ms": -1}), "line 1, column latency_ms"),
        ("{\n", "line 1"),
    )

    def read(self, folder: Path, *pairs: dict[str, Any], **options: Any) -> Workload:
        return import_workload(self.write(folder, lines(*pairs)), **options)

    def by_id(self, folder: Path, *pairs: dict[str, Any]) -> dict[str, Request]:
        return {request.request_id: request for request in self.read(folder, *pairs)}

    def test_a_pair_becomes_a_request(self, tmp_path: Path) -> None:
        body = {"temperature": 0.2, "max_completion_tokens": 9, "stop": "END", "logit_bias": {"5": 1}, "user": "ann"}
        logged = pair(0, [user("one")], "two", request=body, ttft_ms=120)
        request = self.by_id(tmp_path, logged)["r0"]
        assert (request.input_tokens, request.output_tokens, request.cached_tokens) == (10, 4, 3)
        assert (request.ttft_s, request.e2el_s, request.status) == (0.12, 2.0, "ok")
        assert (request.temperature, request.max_tokens, request.stop) == (0.2, 9, ("END",))
        assert request.extra_body == '{"logit_bias":{"5":1}}'
        assert request.response == "two"
        assert request.tenant is not None
        assert "ann" not in request.tenant

    def test_messages_that_extend_an_earlier_answer_are_its_next_turn(self, tmp_path: Path) -> None:
        found = self.by_id(tmp_path, *CONVERSATION)
        assert found["r2"].parent_ids == ("r0",)
        assert found["r3"].parent_ids == ("r2",)
        assert [found[i].turn for i in ("r0", "r2", "r3")] == [0, 1, 2]
        assert {found[i].session_id for i in ("r0", "r2", "r3")} == {"r0"}
        assert found["r1"].session_id is None
        # r2 starts at 20, r0 ended at 0 + 2
        assert found["r2"].think_s == pytest.approx(18)

    def test_thinking_that_a_client_strips_does_not_break_the_chain(self, tmp_path: Path) -> None:
        found = self.by_id(tmp_path, pair(0, [user("one")], "<think>hm</think>\ntwo"), CONVERSATION[2])
        assert found["r2"].parent_ids == ("r0",)

    def test_a_named_session_keeps_its_order(self, tmp_path: Path) -> None:
        named = {"request": {"metadata": {"session": "s1"}}}
        found = self.by_id(tmp_path, pair(0, [user("a")], "x", **named), pair(1, [user("b")], "y", **named))
        assert found["r1"].parent_ids == ("r0",)
        assert found["r1"].session_id == "s1"

    def test_overlapping_turns_of_a_session_do_not_wait_for_each_other(self, tmp_path: Path) -> None:
        named = {"request": {"metadata": {"session": "s1"}}}
        long = pair(0, [user("a")], "x", latency_ms=60_000, **named)
        found = self.by_id(tmp_path, long, pair(1, [user("b")], "y", **named))
        assert found["r1"].parent_ids == ()
        assert found["r1"].session_id == "s1"

    def test_a_user_groups_requests_without_ordering_them(self, tmp_path: Path) -> None:
        body = {"request": {"user": "ann"}}
        found = self.by_id(tmp_path, pair(0, [user("a")], "x", **body), pair(1, [user("b")], "y", **body))
        assert found["r0"].session_id == found["r1"].session_id is not None
        assert found["r1"].parent_ids == ()

    def test_a_previous_response_is_put_in_front(self, tmp_path: Path) -> None:
        reply = {"type": "message", "content": [{"type": "output_text", "text": "two"}]}
        usage = {"input_tokens": 5, "output_tokens": 1}
        first = {"request": {"model": "m", "instructions": "be brief", "input": "one"}}
        first["response"] = {"id": "a", "created_at": 100, "status": "completed", "output": [reply], "usage": usage}
        second = {"request": {"model": "m", "input": [user("three")], "previous_response_id": "a"}}
        second["response"] = first["response"] | {"id": "b", "created_at": 110}
        found = self.by_id(tmp_path, first, second)
        sent = [(m["role"], m["content"]) for m in found["b"].chat_messages()]
        assert sent == [("system", "be brief"), ("user", "one"), ("assistant", "two"), ("user", "three")]
        assert found["b"].parent_ids == ("a",)
        assert (found["b"].input_tokens, found["b"].arrival_s) == (5, 10.0)

    def test_created_stands_in_for_missing_times_and_says_so(self, tmp_path: Path) -> None:
        bare = [{k: v for k, v in p.items() if k != "ts"} for p in CONVERSATION]
        workload = self.read(tmp_path, *bare)
        assert workload.numbers("arrival_s").tolist() == [0, 10, 20, 30]
        assert workload.metadata.time_resolution_s == 1.0
        assert any("whole seconds" in loss for loss in workload.metadata.losses)

    def test_pairs_without_any_time_have_no_arrivals(self, tmp_path: Path) -> None:
        bare = {"request": {"prompt": "one two"}, "response": {"choices": [{"text": "x"}]}}
        workload = self.read(tmp_path, bare, bare)
        assert [r.request_id for r in workload] == ["line-1", "line-2"]
        assert [r.arrival_s for r in workload] == [None, None]
        assert any("arrivals are unknown" in loss for loss in workload.metadata.losses)
        assert any("2 requests have no usage" in loss for loss in workload.metadata.losses)

    @pytest.mark.parametrize("stamp", [1_700_000_000, 1_700_000_000_000, "2023-11-14T22:13:20Z", "2023-11-14 22:13:20"])
    def test_stamps_may_be_seconds_milliseconds_or_text(self, tmp_path: Path, stamp: object) -> None:
        workload = self.read(tmp_path, pair(0, [user("a")], "x", ts=stamp))
        assert workload.metadata.start_time == "2023-11-14T22:13:20+00:00"

    def test_a_failed_pair_is_kept_as_an_error(self, tmp_path: Path) -> None:
        failed = pair(1, [user("b")], "y") | {"response": {"error": {"message": "overloaded"}}}
        found = self.by_id(tmp_path, CONVERSATION[0], failed)
        assert found["line-2"].status == "error"
        assert found["line-2"].extra == '{"error":{"message":"overloaded"}}'
        assert found["line-2"].input_tokens is None

    def test_tool_calls_are_the_response(self, tmp_path: Path) -> None:
        logged = pair(0, [user("a")], "")
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
        logged["response"]["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
        request = self.by_id(tmp_path, logged)["r0"]
        assert json.loads(request.response or "") == {"tool_calls": [{"name": "f", "arguments": '{"x":1}'}]}

    def test_more_choices_than_one_are_kept_aside(self, tmp_path: Path) -> None:
        logged = pair(0, [user("a")], "x")
        logged["response"]["choices"] *= 2
        request = self.by_id(tmp_path, logged)["r0"]
        assert len(json.loads(request.extra or "")["choices"]) == 2

    def test_repeated_ids_are_told_apart_by_line_and_headers_left_out(self, tmp_path: Path) -> None:
        workload = self.read(tmp_path, CONVERSATION[0], CONVERSATION[0] | {"headers": {"authorization": "x"}})
        assert [r.request_id for r in workload] == ["r0", "r0#2"]
        assert any("occur again" in loss for loss in workload.metadata.losses)
        assert any("headers" in loss for loss in workload.metadata.losses)

    def test_a_tokenizer_counts_what_usage_does_not(self, tmp_path: Path, words: TokenCounter) -> None:
        logged = pair(0, [user("one two")], "one")
        del logged["response"]["usage"]
        request = next(iter(self.read(tmp_path, logged, tokenizer=words)))
        # "<user> one two <assistant>" is 4 words
        assert (request.input_tokens, request.output_tokens) == (4, 1)


def test_an_unknown_file_lists_the_formats(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(WorkloadError, match="one of azure, vllm-custom, openai-pairs"):
        import_workload(tmp_path / "x.txt")
    with pytest.raises(WorkloadError, match="unknown format 'tsv'"):
        import_workload(tmp_path / "x.txt", format="tsv")
    with pytest.raises(WorkloadError, match="no file"):
        import_workload(tmp_path / "absent")


def test_a_folder_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"no tokenizer\.json"):
        TokenCounter(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(WorkloadError, match="cannot read"):
        TokenCounter(tmp_path)
