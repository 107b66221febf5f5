"""What is sent: bodies, pinned lengths, prompts, adapters, sampling parameters."""

from __future__ import annotations

import pytest
from mock_server import MockServer
from replay_cases import replay, statuses
from workload_cases import chat, workload

from workloads.errors import WorkloadError
from workloads.metadata import PrefixHashing
from workloads.request import Request


def test_pinned_lengths_are_asked_for_and_every_token_is_timed(server: MockServer) -> None:
    server.behaviour.gap_s = 0.01
    result = replay(server, workload(chat("a", 0.0, max_tokens=99, temperature=0.5, stop=("x",))))
    body, record = server.bodies[0], result.records[0]
    assert (body["min_tokens"], body["max_tokens"], body["ignore_eos"]) == (3, 3, True)
    assert (body["temperature"], body["stop"], body["stream"]) == (0.5, ["x"], True)
    assert "top_p" not in body
    assert record.output_tokens == len(record.token_times_s) == 3
    assert record.first_token_s == record.token_times_s[0]
    assert record.token_times_s[2] - record.token_times_s[0] > 0.015
    assert (record.input_tokens, record.finish_reason, record.http_status) == (7, "length", 200)


def test_free_lengths_send_the_recorded_limit_alone(server: MockServer) -> None:
    replay(server, workload(chat("a", 0.0, max_tokens=9)), pin_lengths=False)
    assert server.bodies[0]["max_tokens"] == 9
    assert "min_tokens" not in server.bodies[0]
    assert "ignore_eos" not in server.bodies[0]


def test_a_server_that_refuses_token_ids_is_asked_without_and_counted_by_usage(server: MockServer) -> None:
    server.behaviour.refuses = frozenset({"return_token_ids"})
    server.behaviour.sends_token_ids = False
    result = replay(server, workload(chat("a", 0.0, output_tokens=5)))
    assert result.records[0].output_tokens == 5
    assert "return_token_ids" not in server.bodies[0]
    assert any("refuses return_token_ids" in note for note in result.notes)


def test_a_server_that_cannot_pin_lengths_is_reported(server: MockServer) -> None:
    server.behaviour.refuses = frozenset({"ignore_eos"})
    result = replay(server, workload(chat("a", 0.0)))
    assert server.bodies[0]["max_tokens"] == 3
    assert any("not pinned" in note for note in result.notes)


def test_prompts_and_token_ids_go_to_completions(server: MockServer) -> None:
    text = chat("a", 0.0, messages=None, prompt="once")
    ids = chat("b", 0.1, messages=None, prompt_token_ids=(5, 6, 7))
    replay(server, workload(text, ids))
    assert [body["prompt"] for body in server.bodies] == ["once", [5, 6, 7]]
    assert server.paths == ["/v1/completions"] * 2


def test_hashes_become_token_ids_with_the_recorded_shared_prefix(server: MockServer) -> None:
    first = Request(request_id="a", arrival_s=0.0, input_tokens=10, output_tokens=2, prefix_hashes=(1, 2, 3))
    second = Request(request_id="b", arrival_s=0.1, input_tokens=11, output_tokens=2, prefix_hashes=(1, 2, 9))
    prefix = PrefixHashing(block_size=4, tail_hashed=True)
    replay(server, workload(first, second, prefix=prefix, vocab_size=1000))
    a, b = (body["prompt"] for body in server.bodies)
    assert (len(a), len(b)) == (10, 11)
    assert a[:8] == b[:8]
    assert a[8:] != b[8:10]
    assert all(100 <= token < 900 for token in a + b)


def test_a_prompt_without_text_needs_a_vocabulary_size(server: MockServer) -> None:
    lengths = Request(request_id="a", arrival_s=0.0, input_tokens=10, output_tokens=2)
    with pytest.raises(WorkloadError, match="vocabulary size"):
        replay(server, workload(lengths))


def test_lengths_beyond_the_servers_context_are_cut_and_counted(server: MockServer) -> None:
    server.behaviour.max_model_len = 32
    long = Request(request_id="a", arrival_s=0.0, input_tokens=100, output_tokens=8)
    result = replay(server, workload(long, vocab_size=1000))
    assert len(server.bodies[0]["prompt"]) == 24
    assert server.bodies[0]["max_tokens"] == 8
    assert "1 prompts cut to the server's max_model_len" in result.notes


def test_the_api_key_is_sent(server: MockServer) -> None:
    replay(server, workload(chat("a", 0.0)), api_key="secret")
    assert server.headers[0]["Authorization"] == "Bearer secret"


def test_the_recorded_body_is_honoured_where_it_does_not_contradict_the_replay(server: MockServer) -> None:
    request = chat(
        "a", 0.0, extra_body='{"n":3,"stream":false,"logit_bias":{"5":1}}', response_format='{"type":"text"}'
    )
    result = replay(server, workload(request))
    body = server.bodies[0]
    assert body["logit_bias"] == {"5": 1}
    assert body["stream"] is True
    assert "n" not in body
    assert "response_format" not in body
    assert any("guided decoding is off" in note for note in result.notes)
    replay(server, workload(request), pin_lengths=False)
    assert server.bodies[1]["response_format"] == {"type": "text"}


def test_adapters_are_named_where_the_server_has_them(server: MockServer) -> None:
    server.behaviour.models = ("mock", "lora-1")
    result = replay(server, workload(chat("a", 0.0, adapter="lora-1"), chat("b", 0.1, adapter="lora-2")))
    assert [body["model"] for body in server.bodies] == ["lora-1", "mock"]
    assert "1 requests for adapters the server does not have, sent to the base model" in result.notes
    assert "1 requests sent to the LoRA adapter that they name" in result.notes
    assert "lora-1" in result.served_models


def test_sampling_parameters_are_sent_and_slo_classes_recorded_request_by_request(server: MockServer) -> None:
    drawn = chat("a", 0.0, temperature=0.7, top_p=0.9, top_k=40, seed=3, stop=("x",), slo_class="batch")
    result = replay(server, workload(drawn, chat("b", 0.1, temperature=0.0, slo_class="chat"), chat("c", 0.2)))
    first, second, third = server.bodies
    names = ("temperature", "top_p", "top_k", "seed", "stop")
    assert [first.get(name) for name in names] == [0.7, 0.9, 40, 3, ["x"]]
    assert [second.get(name) for name in names] == [0.0, None, None, None, None]
    assert [third.get(name) for name in names] == [None] * 5
    assert [record.slo_class for record in result.records] == ["batch", "chat", None]


def test_a_large_body_is_sent(server: MockServer) -> None:
    result = replay(server, workload(chat("a", 0.0, messages=None, prompt="x" * 3_000_000)))
    assert statuses(result.records) == ["ok"]
    assert len(server.bodies[0]["prompt"]) == 3_000_000
