"""A server in a thread of this process, and a plain client for it."""

import asyncio
import contextlib
import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engine.bundled.server.app import DEFAULT_MAX_BODY_BYTES, make_app
from engine.bundled.server.engine_thread import EngineThread
from engine.bundled.server.http_server import HttpServer, listen, make_http_server
from engine.bundled.server.served_model import ServedModel

ENDLESS = {"prompt": "say", "max_tokens": 90, "ignore_eos": True}


def wait_for(condition, what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@dataclass
class Client:
    """Speaks JSON to one base URL."""

    base_url: str
    engine: Any = None
    thread: EngineThread | None = None

    def post(self, path: str, body: Any, *, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._send(urllib.request.Request(self.base_url + path, data=data, headers=headers or {}))

    def get(self, path: str, *, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        return self._send(urllib.request.Request(self.base_url + path, headers=headers or {}))

    def _send(self, request: urllib.request.Request) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, _decode(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _decode(error.read())

    def stream(self, path: str, body: dict[str, Any]) -> list[Any]:
        """All events, the end mark as the string it is."""
        data = json.dumps({**body, "stream": True}).encode()
        with urllib.request.urlopen(urllib.request.Request(self.base_url + path, data=data), timeout=60) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = [line for line in answer.read().decode().split("\n\n") if line]
        assert all(line.startswith("data: ") for line in lines)
        return [_decode(line.removeprefix("data: ").encode()) for line in lines]

    def open_stream(self, path: str, body: dict[str, Any]) -> http.client.HTTPConnection:
        """A stream whose answer has begun; close the connection to walk away."""
        connection = http.client.HTTPConnection(self.base_url.removeprefix("http://"), timeout=60)
        connection.request("POST", path, json.dumps({**body, "stream": True}))
        return connection


def _decode(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content.decode()


@contextlib.contextmanager
def served(
    engine: Any, *, api_key: str | None = None, max_body_bytes: int = DEFAULT_MAX_BODY_BYTES, **model_options: Any
) -> Iterator[Client]:
    """The application around an engine on a port of its own."""
    listener = listen("127.0.0.1", 0)
    begun: list[tuple[HttpServer, EngineThread]] = []
    ready = threading.Event()

    async def run() -> None:
        thread = EngineThread(lambda: engine)
        await thread.start()
        model = ServedModel(
            name="fake",
            tokenizer=engine.tokenizer,
            max_model_len=engine.max_model_len,
            vocab_size=engine.vocab_size,
            thread=thread,
            **model_options,
        )
        server = make_http_server(make_app(model, api_key=api_key, max_body_bytes=max_body_bytes))
        begun.append((server, thread))
        ready.set()
        await server.serve([listener])
        thread.stop(30)

    runner = threading.Thread(target=asyncio.run, args=(run(),))
    port = listener.getsockname()[1]
    runner.start()
    assert ready.wait(60)
    server, thread = begun[0]
    try:
        yield Client(f"http://127.0.0.1:{port}", engine, thread)
    finally:
        server.stop()
        runner.join(60)
