"""Health, metrics, tokenization, keys, clients that walk away and engines that die."""

import contextlib
import threading

import pytest
from fake_engine import FakeEngine
from prometheus_client.parser import text_string_to_metric_families
from served import ENDLESS, Client, served, wait_for


def test_the_model_card_tells_the_context(server: Client) -> None:
    status, answer = server.get("/v1/models")
    assert status == 200
    assert [(card["id"], card["max_model_len"]) for card in answer["data"]] == [("fake", 100)]


def test_metrics_carry_vllms_names(server: Client) -> None:
    server.post("/v1/completions", {"prompt": "say", "max_tokens": 2})
    page = server.get("/metrics")[1]
    samples = {
        (sample.name, sample.labels.get("position") or sample.labels.get("finished_reason")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert samples["vllm:spec_decode_num_drafts_total", None] == 3
    assert samples["vllm:spec_decode_num_draft_tokens_total", None] == 12
    assert samples["vllm:spec_decode_num_accepted_tokens_total", None] == 7
    assert samples["vllm:spec_decode_num_accepted_tokens_per_pos_total", "0"] == 4
    assert samples["vllm:prompt_tokens_total", None] == 5
    assert samples["vllm:request_success_total", "length"] == 1
    assert samples["vllm:time_to_first_token_seconds_count", None] == 1
    for name in ("kv_cache_usage_perc", "num_requests_running", "num_requests_waiting"):
        assert (f"vllm:{name}", None) in samples


def test_the_prefix_cache_is_reset_only_when_idle() -> None:
    with served(FakeEngine(step_s=0.01)) as server:
        assert server.post("/reset_prefix_cache", b"")[0] == 200
        stream = server.open_stream("/v1/completions", ENDLESS)
        stream.getresponse().read(10)
        assert server.post("/reset_prefix_cache", b"")[0] == 409
        stream.close()


def test_text_becomes_tokens_and_text_again(server: Client) -> None:
    status, answer = server.post("/tokenize", {"prompt": "hi", "return_token_strs": True})
    assert status == 200
    assert answer == {"count": 2, "max_model_len": 100, "tokens": [104, 105], "token_strs": ["h", "i"]}
    assert server.post("/tokenize", {"messages": [{"role": "user", "content": "x"}]})[1]["count"] == 18
    assert server.post("/detokenize", {"tokens": [104, 105]})[1] == {"prompt": "hi"}
    assert server.post("/detokenize", {"tokens": [999]})[0] == 400
    assert server.post("/tokenize", {})[0] == 400


def test_with_a_key_only_its_holders_may_ask() -> None:
    with served(FakeEngine(), api_key="secret") as server:
        assert server.get("/health")[0] == 200
        status, answer = server.get("/v1/models")
        assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
        assert server.get("/v1/models", headers={"Authorization": "Bearer wrong"})[0] == 401
        assert server.get("/v1/models", headers={"Authorization": "Bearer secret"})[0] == 200


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_walks_away_aborts_its_request(stream: bool) -> None:
    with served(FakeEngine(step_s=0.02)) as server:
        connection = server.open_stream("/v1/completions", ENDLESS | {"n": 2})
        if stream:
            connection.getresponse().read(10)
        wait_for(lambda: len(server.engine.running) == 2, "the requests never ran")
        connection.close()
        wait_for(lambda: len(server.engine.aborted) == 2, "the requests were not aborted")
        assert server.post("/v1/completions", {"prompt": "say", "max_tokens": 2})[0] == 200


def test_outputs_that_pile_up_stay_one_event_each() -> None:
    with served(FakeEngine(text="x" * 80, step_s=0.0)) as server:
        events = server.stream("/v1/completions", ENDLESS | {"return_token_ids": True, "max_tokens": 80})
        assert [len(event["choices"][0]["token_ids"]) for event in events[:-1]] == [1] * 80


def test_many_streams_at_once_keep_their_own_tokens() -> None:
    with served(FakeEngine(text="abcdefghij" * 4)) as server:
        texts: list[str] = []

        def read() -> None:
            events = server.stream("/v1/completions", {"prompt": "say", "max_tokens": 60})
            texts.append("".join(event["choices"][0]["text"] for event in events[:-1]))

        readers = [threading.Thread(target=read) for _ in range(32)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(30)
        assert texts == ["abcdefghij" * 4] * 32


def test_an_idle_server_notices_that_a_rank_has_gone() -> None:
    with served(FakeEngine()) as server:
        assert server.get("/health")[0] == 200
        server.engine.lost_a_rank = True
        wait_for(lambda: server.get("/health")[0] == 500, "the loss was not noticed")


def test_a_dead_engine_fails_what_runs_and_what_comes() -> None:
    with served(FakeEngine(step_s=0.01)) as server:
        with contextlib.closing(server.open_stream("/v1/completions", ENDLESS)) as connection:
            response = connection.getresponse()
            response.read(10)
            server.engine.breaks = True
            rest = response.read().decode()
        assert "the engine has stopped after an internal error" in rest
        assert rest.endswith("data: [DONE]\n\n")
        for status, answer in (server.get("/health"), server.post("/v1/completions", ENDLESS), server.get("/metrics")):
            assert status == 500
            assert "engine has stopped" in answer["error"]["message"]
