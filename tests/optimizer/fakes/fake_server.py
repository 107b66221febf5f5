"""A small OpenAI server in a thread: completions and chat, streamed or whole, with latencies and faults to order."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from fakes.fake_model import END, FakeModel, decode, encode

from engine.artifacts.checkpoint_record import CheckpointRecord
from engine.backend import EngineError, EngineStatistics, FailureKind
from engine.config import EngineConfig


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """What to fake."""

    damage: float = 0.0  # of the model
    ttft_s: float = 0.002
    tpot_s: float = 0.0005
    max_num_seqs: int = 64  # requests beyond it queue
    hangs_after: int | None = None  # requests; later ones get no token
    dies_after: int | None = None
    num_accepted_per_draft: int | None = None
    is_plain: bool = False  # plain OpenAI: no token ids, no scores of prompts, unknown fields refused


class FakeServer:
    """Implements `engine.backend.Server`; a context manager."""

    model_name = "fake"
    launch_s = 0.01
    api_key: str | None = None
    notes: tuple[str, ...] = ()
    weights: CheckpointRecord | None = None

    def __init__(self, behaviour: Behaviour, *, log_path: Path) -> None:
        self.behaviour = behaviour
        self.log_path = log_path
        self.model = FakeModel(damage=behaviour.damage)
        self.bodies: list[dict[str, Any]] = []
        self.num_resets = self.num_tokens = 0
        self.dead = False

    def __enter__(self) -> "FakeServer":
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self.log_path.write_text("fake engine up\n")
        started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def reconfigure(self, config: EngineConfig) -> bool:  # noqa: ARG002
        return False

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._open())
        started.set()
        self._loop.run_forever()

    async def _open(self) -> None:
        self._slots = asyncio.Semaphore(self.behaviour.max_num_seqs)
        app = web.Application()
        app.router.add_post("/v1/completions", self._guarded(self._completions))
        app.router.add_post("/v1/chat/completions", self._guarded(self._chat))
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port: int = self._runner.addresses[0][1]

    async def _close(self) -> None:
        await self._runner.cleanup()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def statistics(self) -> EngineStatistics:
        per_draft = self.behaviour.num_accepted_per_draft
        drafts = self.num_tokens // (per_draft + 1) if per_draft else 0
        return EngineStatistics(
            num_drafts=drafts,
            num_accepted_tokens=drafts * (per_draft or 0),
            prefix_cache_queries=10 * len(self.bodies),
            prefix_cache_hits=4 * len(self.bodies),
            generation_tokens=self.num_tokens,
        )

    def steps(self) -> bytes | None:
        """Not a step log: how many requests came so far."""
        return str(len(self.bodies)).encode()

    def reset_prefix_cache(self) -> None:
        self.num_resets += 1

    def check_alive(self) -> None:
        if self.dead:
            raise EngineError("the engine ended", kind=FailureKind.DIED, log_path=self.log_path)

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": self.model_name}]})

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    def _guarded(
        self, handle: Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def guarded(request: web.Request) -> web.StreamResponse:
            self.bodies.append(await request.json())
            behaviour = self.behaviour
            if behaviour.is_plain and {"return_token_ids", "prompt_logprobs"} & self.bodies[-1].keys():
                return web.json_response({"error": {"message": "unknown field"}}, status=400)
            if self.api_key is not None and request.headers.get("Authorization") != f"Bearer {self.api_key}":
                return web.json_response({"error": {"message": "no key"}}, status=401)
            if behaviour.dies_after is not None and len(self.bodies) > behaviour.dies_after:
                self.dead = True
                assert request.transport is not None
                request.transport.abort()
            if behaviour.hangs_after is not None and len(self.bodies) > behaviour.hangs_after:
                await asyncio.sleep(60)
            async with self._slots:
                return await handle(request, self.bodies[-1])

        return guarded

    async def _completions(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        prompt = encode(body["prompt"]) if isinstance(body["prompt"], str) else body["prompt"]
        tokens = self._generate(prompt, body)
        if body.get("stream"):
            return await self._stream(request, body, prompt, tokens, lambda text: {"text": text})
        await self._take_time(len(tokens))
        choice: dict[str, Any] = {"index": 0, "text": decode(tokens), "finish_reason": _finish(tokens)}
        if body.get("prompt_logprobs") is not None:
            choice["prompt_logprobs"] = self._prompt_logprobs(prompt, body["prompt_logprobs"])
        if not self.behaviour.is_plain:
            choice |= {"prompt_token_ids": prompt, "token_ids": tokens}
        return web.json_response({"choices": [choice], "usage": _usage(prompt, tokens)})

    async def _chat(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        prompt = encode("".join(f"<{m['role']}>{m['content']}" for m in body["messages"]))
        tokens = self._generate(prompt, body)
        if body.get("stream"):
            return await self._stream(request, body, prompt, tokens, lambda text: {"delta": {"content": text}})
        await self._take_time(len(tokens))
        message = {"role": "assistant", "content": decode(tokens)}
        choice = {"index": 0, "message": message, "finish_reason": _finish(tokens)}
        body = {"choices": [choice], "usage": _usage(prompt, tokens)}
        if not self.behaviour.is_plain:
            choice["token_ids"] = tokens
            body["prompt_token_ids"] = prompt
        return web.json_response(body)

    def _generate(self, prompt: list[int], body: dict[str, Any]) -> list[int]:
        limit = body.get("max_tokens") or body.get("max_completion_tokens") or 16
        tokens = self.model.generate(prompt, limit, ignore_end=body.get("ignore_eos", False))
        self.num_tokens += len(tokens)
        return tokens

    async def _take_time(self, num_tokens: int) -> None:
        await asyncio.sleep(self.behaviour.ttft_s + self.behaviour.tpot_s * num_tokens)

    async def _stream(
        self,
        request: web.Request,
        body: dict[str, Any],
        prompt: list[int],
        tokens: list[int],
        member: Callable[[str], dict[str, Any]],
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await asyncio.sleep(self.behaviour.ttft_s)
        for index, token in enumerate(tokens):
            last = index == len(tokens) - 1
            choice = {"index": 0, **member(decode([token])), "finish_reason": _finish(tokens) if last else None}
            choice["token_ids"] = [token]
            usage = _usage(prompt, tokens[: index + 1])
            await response.write(_event({"choices": [choice], "usage": usage}))
            await asyncio.sleep(self.behaviour.tpot_s)
        if body.get("stream_options", {}).get("include_usage"):
            await response.write(_event({"choices": [], "usage": _usage(prompt, tokens)}))
        await response.write(b"data: [DONE]\n\n")
        return response

    def _prompt_logprobs(self, prompt: list[int], k: int) -> list[dict[str, Any] | None]:
        return [None, *(self._entry(prompt[:i], prompt[i], k) for i in range(1, len(prompt)))]

    def _entry(self, context: list[int], own: int, k: int) -> dict[str, Any]:
        shown = [*self.model.top(context, k), (own, self.model.logprobs(context).get(own, -9999.0))]
        return {str(token): {"logprob": logprob, "rank": rank} for rank, (token, logprob) in enumerate(shown, start=1)}


def _event(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def _finish(tokens: list[int]) -> str:
    return "stop" if tokens and tokens[-1] == END else "length"


def _usage(prompt: list[int], tokens: list[int]) -> dict[str, int]:
    return {"prompt_tokens": len(prompt), "completion_tokens": len(tokens), "total_tokens": len(prompt) + len(tokens)}
