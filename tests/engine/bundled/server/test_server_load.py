"""What the server does with more than it can take, and who comes first."""

import contextlib
import http.client
import json

import pytest
from fake_engine import FakeEngine
from served import ENDLESS, Client, served, wait_for

from engine.bundled.sequence import Standing
from engine.bundled.server.request_metrics import RequestMetrics


def refusal(server: Client, body: bytes | dict[str, object]) -> tuple[int, str | None, str]:
    """Status, Retry-After and the sentence."""
    connection = http.client.HTTPConnection(server.base_url.removeprefix("http://"), timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/completions", body if isinstance(body, bytes) else json.dumps(body))
        answer = connection.getresponse()
        return answer.status, answer.headers["retry-after"], json.loads(answer.read())["error"]["message"]


def test_more_than_it_takes_gets_a_429_and_a_time_to_come_back() -> None:
    with served(FakeEngine(step_s=0.01), max_requests=2) as server:
        with contextlib.closing(server.open_stream("/v1/completions", ENDLESS | {"n": 2})):
            wait_for(lambda: len(server.engine.running) == 2, "the requests never ran")
            status, retry_after, words = refusal(server, {"prompt": "say"})
            assert (status, retry_after) == (429, "1")
            assert "2 of 2 generations are in flight" in words
        wait_for(lambda: not server.engine.running, "the requests were not aborted")
        assert server.post("/v1/completions", {"prompt": "say", "max_tokens": 2})[0] == 200


def test_one_request_that_never_fits_is_told_so() -> None:
    with served(FakeEngine(), max_requests=2) as server:
        status, retry_after, words = refusal(server, {"prompt": "say", "n": 3})
        assert (status, retry_after) == (400, None)
        assert "more than this server's 2" in words


def test_the_time_to_come_back_follows_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 2.0, 4.0])
    metrics = RequestMetrics("m")
    assert metrics.seconds_to_finish(5) == 1
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    for _ in range(3):
        metrics.count_finished("stop")
    assert metrics.seconds_to_finish(5) == 10
    assert metrics.seconds_to_finish(1000) == 60


def test_a_body_that_is_too_large_is_not_read_to_its_end() -> None:
    with served(FakeEngine(), max_body_bytes=2**20) as server:
        status, _, words = refusal(server, b'{"prompt": "' + b"x" * 2**21)
        assert status == 413
        assert "larger than 1 MiB" in words
        assert server.post("/v1/completions", {"prompt": "say", "max_tokens": 2})[0] == 200


def test_a_draining_server_finishes_what_it_has_and_takes_nothing_more() -> None:
    with (
        served(FakeEngine(step_s=0.01)) as server,
        contextlib.closing(server.open_stream("/v1/completions", ENDLESS)) as connection,
    ):
        response = connection.getresponse()
        response.read(10)
        assert server.thread is not None
        server.thread.drain()
        assert server.get("/health")[0] == 503
        assert refusal(server, {"prompt": "say"})[:2] == (503, "5")
        assert '"finish_reason":"length"' in response.read().decode()


def test_priority_and_user_reach_the_engine() -> None:
    with served(FakeEngine(), scheduling_policy="priority") as server:
        for body in ({"priority": -3, "user": "ann"}, {}):
            assert server.post("/v1/completions", {"prompt": "say", "max_tokens": 2} | body)[0] == 200
        assert server.engine.standings == [Standing(priority=-3, client="ann"), Standing()]


def test_a_priority_nobody_looks_at_is_refused() -> None:
    with served(FakeEngine()) as server:
        status, _, words = refusal(server, {"prompt": "say", "priority": 1})
        assert status == 400
        assert "start the server with scheduling_policy: priority" in words
