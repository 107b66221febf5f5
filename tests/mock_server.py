"""A small OpenAI-compatible server in a thread of its own whose faults a test can choose."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Behaviour:
    """What the mock does; a fault is 500, hang, cut_stream, drop, error_event or stall."""

    first_token_s: float = 0.0
    gap_s: float = 0.0
    tokens_per_chunk: int = 1
    sends_token_ids: bool = True
    refuses: frozenset[str] = frozenset()  # body fields answered with 400
    max_model_len: int | None = None
    models: tuple[str, ...] = ("mock",)
    answers_from: int = 0  # no answer begins before so many requests have come
    fault: Callable[[dict[str, Any]], str | None] = lambda _: None


@dataclass
class MockServer:
    """Answers `max_tokens` tokens; `bodies` are the requests it saw, without the replayer's probe."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: set[int] = field(default_factory=set)
    stalled: tuple[float, float] = (0.0, 0.0)  # monotonic begin and end
    port: int = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _stall(self) -> None:
        """Block the whole server, as a long engine step would, and remember when."""
        begin = time.monotonic()
        time.sleep(0.1)
        self.stalled = (begin, time.monotonic())

    async def _models(self, _: web.Request) -> web.Response:
        card = {"object": "model", "max_model_len": self.behaviour.max_model_len}
        return web.json_response({"data": [card | {"id": name} for name in self.behaviour.models]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        probe = body.get("prompt") == "Hi" or body.get("messages") == [{"role": "user", "content": "Hi"}]
        probe = probe or (isinstance(body.get("prompt"), list) and len(body["prompt"]) == 1)
        refused = sorted(self.behaviour.refuses & body.keys())
        if refused:
            return web.json_response({"error": {"message": f"unknown field {refused[0]}"}}, status=400)
        fault = None if probe else self.behaviour.fault(body)
        if not probe:
            self.bodies.append(body)
            self.paths.append(request.path)
            self.headers.append(dict(request.headers))
            self.connections.add(id(request.transport))
        while not probe and len(self.bodies) < self.behaviour.answers_from:
            await asyncio.sleep(0.002)
        if fault == "stall":
            self._stall()
        if fault == "500":
            return web.json_response({"error": {"message": "engine exploded"}}, status=500)
        if fault == "drop":
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        return await self._stream(request, body, fault)

    async def _stream(self, request: web.Request, body: dict[str, Any], fault: str | None) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if fault == "hang":
            await asyncio.sleep(60)
        await asyncio.sleep(self.behaviour.first_token_s)
        total, step = body.get("max_tokens") or 4, self.behaviour.tokens_per_chunk
        for start in range(0, total, step):
            count = min(step, total - start)
            await _send(response, self._chunk(request.path, start, count, start + count == total))
            if fault == "cut_stream":
                assert request.transport is not None
                request.transport.close()
                return response
            if fault == "error_event":
                await _send(response, {"error": {"message": "out of memory"}})
                break
            if self.behaviour.gap_s and start + count < total:
                await asyncio.sleep(self.behaviour.gap_s)
        usage = {"prompt_tokens": 7, "completion_tokens": total, "total_tokens": 7 + total}
        await _send(response, {"choices": [], "usage": usage})
        await response.write(b"data: [DONE]\n\n")
        return response

    def _chunk(self, path: str, start: int, count: int, last: bool) -> dict[str, Any]:
        text = "".join(f"t{i} " for i in range(start, start + count))
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length" if last else None}
        choice |= {"delta": {"content": text}} if "chat" in path else {"text": text}
        if self.behaviour.sends_token_ids:
            choice["token_ids"] = list(range(start, start + count))
        return {"id": "x", "choices": [choice]}

    async def _serve(self, ready: threading.Event) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/v1/chat/completions", self._complete)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        ready.set()
        await self._closing.wait()
        await runner.cleanup()

    def start(self) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(10)


async def _send(response: web.StreamResponse, event: dict[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n")
