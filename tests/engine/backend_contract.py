"""What every `Backend` and its `Server` must do; a member's test class inherits and gives a backend and a config."""

import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.backend import Backend, EngineError, FailureKind, Server
from engine.config import EngineConfig


def post(server: Server, path: str, body: dict[str, Any]) -> dict[str, Any]:
    with _open(server, path, body) as answer:
        return json.loads(answer.read())


def stream(server: Server, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    with _open(server, path, {**body, "stream": True}) as answer:
        lines = [line.removeprefix(b"data: ") for line in answer.read().split(b"\n\n") if line]
    assert lines[-1] == b"[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def _open(server: Server, path: str, body: dict[str, Any]) -> Any:
    data = json.dumps({"model": server.model_name, **body}).encode()
    headers = {"Content-Type": "application/json"}
    return urllib.request.urlopen(urllib.request.Request(server.base_url + path, data, headers), timeout=120)


def descendants() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE}


class ServerContract:
    """What every `Server` must do, whoever started it; subclasses define the fixture `server`."""

    def test_the_server_says_where_and_what_it_is(self, server: Server) -> None:
        with urllib.request.urlopen(server.base_url + "/v1/models", timeout=10) as answer:
            [card] = json.loads(answer.read())["data"]
        assert card["id"] == server.model_name
        assert card["max_model_len"] > 0
        assert server.launch_s > 0
        assert server.log_path.exists()
        server.check_alive()

    def test_lengths_can_be_pinned(self, server: Server) -> None:
        body = {"prompt": [5, 6, 7], "min_tokens": 12, "max_tokens": 12, "ignore_eos": True}
        answer = post(server, "/v1/completions", body)
        assert answer["usage"]["completion_tokens"] == 12
        assert answer["choices"][0]["finish_reason"] == "length"

    def test_a_stream_gives_the_same_greedy_tokens_as_the_whole(self, server: Server) -> None:
        body = {
            "prompt": [5, 6, 7, 8],
            "max_tokens": 16,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
        }
        [whole] = post(server, "/v1/completions", body)["choices"]
        events = [event["choices"][0] for event in stream(server, "/v1/completions", body) if event["choices"]]
        assert [token for event in events for token in event["token_ids"]] == whole["token_ids"]
        assert "".join(event["text"] for event in events) == whole["text"]
        assert len(whole["token_ids"]) == 16

    def test_prompts_can_be_scored(self, server: Server) -> None:
        body = {"prompt": [5, 6, 7, 8], "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        first, *rest = post(server, "/v1/completions", body)["choices"][0]["prompt_logprobs"]
        assert first is None
        assert [list(entry) for entry in rest] == [["6"], ["7"], ["8"]]
        assert all(entry[token]["logprob"] <= 0 for entry in rest for token in entry)

    def test_counters_move_with_the_work(self, server: Server) -> None:
        before = server.statistics()
        post(server, "/v1/completions", {"prompt": [9, 10, 11], "max_tokens": 5, "ignore_eos": True})
        after = server.statistics()
        assert after.prompt_tokens - before.prompt_tokens == 3
        assert after.generation_tokens - before.generation_tokens == 5

    def test_a_reset_forgets_cached_prefixes(self, server: Server) -> None:
        server.reset_prefix_cache()
        body = {"prompt": list(range(5, 105)), "max_tokens": 1}
        hits = []
        for is_reset in (False, False, True):
            if is_reset:
                server.reset_prefix_cache()
            before = server.statistics().prefix_cache_hits
            post(server, "/v1/completions", body)
            hits.append(server.statistics().prefix_cache_hits - before)
        assert hits[0] == 0
        assert hits[1] > 0
        assert hits[2] == 0


class BackendContract(ServerContract):
    """Subclasses define the two fixtures `backend` and `config`."""

    @pytest.fixture(scope="class")
    @classmethod
    def server(
        cls, backend: Backend, config: EngineConfig, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Server]:
        before = descendants()
        with backend.launch(config, log_path=tmp_path_factory.mktemp("engine") / "engine.log") as server:
            assert descendants() > before
            yield server
        assert descendants() == before, "nothing runs after the end"
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(server.base_url + "/health", timeout=5)

    def test_nothing_speaks_against_a_good_config(self, backend: Backend, config: EngineConfig) -> None:
        assert backend.check(config) == []

    def test_a_missing_model_is_refused_without_a_launch(self, backend: Backend, config: EngineConfig) -> None:
        before = descendants()
        refusals = backend.check(config.model_copy(update={"model": "/no/such/model"}))
        assert any("/no/such/model" in refusal.reason for refusal in refusals)
        assert descendants() == before

    def test_a_killed_engine_is_noticed_as_died(self, backend: Backend, config: EngineConfig, tmp_path: Path) -> None:
        before = descendants()
        with backend.launch(config, log_path=tmp_path / "engine.log") as server:
            for pid in descendants() - before:
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(EngineError) as caught:
                _until_noticed(server)
            assert caught.value.kind is FailureKind.DIED
            assert caught.value.log_path == server.log_path


def _until_noticed(server: Server) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        server.check_alive()
        time.sleep(0.02)
