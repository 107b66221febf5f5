"""What quality asks a server: its own greedy answer to a prompt, and how likely it finds given tokens.

Does not score, and does not measure time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp

from engine.backend import EngineError, FailureKind, Server
from optimizer.quality.divergence import TopLogprobs, top_logprobs

CONCURRENCY = 64
TOP_LOGPROBS = 8  # the divergence is a lower bound whatever it is; vLLM allows up to 20

_TOKEN_IDS = "return_token_ids"

Question = TypeVar("Question")
Reply = TypeVar("Reply")
OnDone = Callable[[int], None]  # how many are answered


@dataclass(frozen=True, kw_only=True)
class Query:
    """A request's endpoint and body without `model`, e.g. ("/v1/completions", {"prompt": [1, 2], ...})."""

    path: str
    body: Mapping[str, Any]
    adapter: str | None = None  # the LoRA adapter that is asked, where it is not the base model


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A greedy answer with the exact tokens on both sides; none where the server does not tell them."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    text: str
    adapter: str | None = None  # that gave it


class RequestRefusedError(Exception):
    """The server refused this request (4xx), e.g. because it is too long; others may still be answered."""


def ask_all(
    server: Server, queries: Sequence[Query], *, hang_s: float, on_done: OnDone
) -> list[Answer | RequestRefusedError]:
    """Each query's greedy answer, in order; refusals in place of answers.

    Raises:
        EngineError: the engine died or hung.
    """

    async def ask(session: aiohttp.ClientSession, query: Query) -> Answer | RequestRefusedError:
        plain = {name: value for name, value in query.body.items() if name != _TOKEN_IDS}
        plain |= {"model": query.adapter or server.model_name, "temperature": 0.0}
        refusal = RequestRefusedError("nothing was asked")
        for body in ({**plain, _TOKEN_IDS: True}, plain):  # some servers refuse fields they do not know
            try:
                return _answer(await _post(session, server.base_url + query.path, body), query.adapter)
            except RequestRefusedError as refused:
                refusal = refused
        return refusal

    return _all(server, queries, ask, hang_s=hang_s, on_done=on_done)


def score_all(
    server: Server, answers: Sequence[Answer], *, hang_s: float, on_done: OnDone, k: int = TOP_LOGPROBS
) -> list[TopLogprobs]:
    """The server's likeliest tokens at each position of each response, fed prompt and response (teacher forcing).

    Raises:
        EngineError: the engine died or hung, or refused a sequence; UNSUPPORTED when it does not score prompts.
    """

    async def score(session: aiohttp.ClientSession, answer: Answer) -> TopLogprobs:
        body = {
            "model": answer.adapter or server.model_name,
            "prompt": [*answer.prompt_ids, *answer.response_ids],
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": k,
        }
        try:
            reply = await _post(session, server.base_url + "/v1/completions", body)
        except RequestRefusedError as refusal:
            what = f"the engine refused to score a response: {refusal}"
            raise EngineError(what, kind=FailureKind.UNSUPPORTED, log_path=server.log_path) from None
        if reply["choices"][0].get("prompt_logprobs") is None:
            what = "the engine does not score prompts (prompt_logprobs)"
            raise EngineError(what, kind=FailureKind.UNSUPPORTED, log_path=server.log_path)
        return _response_logprobs(reply, len(answer.prompt_ids))

    return _all(server, answers, score, hang_s=hang_s, on_done=on_done)


def _answer(reply: Mapping[str, Any], adapter: str | None) -> Answer:
    choice = reply["choices"][0]
    prompt_ids = choice.get("prompt_token_ids") or reply.get("prompt_token_ids")
    response_ids = choice.get("token_ids")
    if prompt_ids is None or response_ids is None:
        prompt_ids = response_ids = ()
    return Answer(prompt_ids=tuple(prompt_ids), response_ids=tuple(response_ids), text=_text(choice), adapter=adapter)


def _text(choice: Mapping[str, Any]) -> str:
    """What was said; tool calls as JSON, in the form that checks read."""
    message = choice.get("message")
    if message is None:
        return str(choice["text"])
    if message.get("tool_calls"):
        return json.dumps({"tool_calls": message["tool_calls"]})
    return message.get("content") or ""


def _response_logprobs(reply: Mapping[str, Any], num_prompt: int) -> TopLogprobs:
    positions = reply["choices"][0]["prompt_logprobs"][num_prompt:]
    return top_logprobs([{int(token): entry["logprob"] for token, entry in p.items()} for p in positions])


def _all(
    server: Server,
    questions: Sequence[Question],
    ask: Callable[[aiohttp.ClientSession, Question], Awaitable[Reply]],
    *,
    hang_s: float,
    on_done: OnDone,
) -> list[Reply]:
    vigil = _Vigil(server, hang_s)
    try:
        return asyncio.run(_gather(questions, ask, vigil=vigil, on_done=on_done))
    except TimeoutError:
        server.check_alive()
        what = f"the engine did nothing for {hang_s:g} s while its quality was evaluated"
        raise EngineError(what, kind=FailureKind.HANG, log_path=server.log_path) from None
    except (aiohttp.ClientError, ConnectionError) as error:
        server.check_alive()
        what = f"the engine dropped a request while its quality was evaluated: {error}"
        raise EngineError(what, kind=FailureKind.DIED, log_path=server.log_path) from None


class _Vigil:
    """Ends with TimeoutError when nothing was answered and no token was computed for `hang_s`."""

    def __init__(self, server: Server, hang_s: float) -> None:
        self._server, self._hang_s = server, hang_s
        self._num_tokens = self._count()
        self.last_s = time.monotonic()
        self.headers = {"Authorization": f"Bearer {server.api_key}"} if server.api_key else {}

    def _count(self) -> int:
        statistics = self._server.statistics()
        return statistics.prompt_tokens + statistics.generation_tokens

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(self._hang_s / 4)
            if time.monotonic() - self.last_s < self._hang_s:
                continue
            num_tokens = await asyncio.to_thread(self._count)  # whole answers come late from a slow engine
            if num_tokens == self._num_tokens:
                raise TimeoutError
            self._num_tokens, self.last_s = num_tokens, time.monotonic()


async def _gather(
    questions: Sequence[Question],
    ask: Callable[[aiohttp.ClientSession, Question], Awaitable[Reply]],
    *,
    vigil: _Vigil,
    on_done: OnDone,
) -> list[Reply]:
    """All at most `CONCURRENCY` at a time; the first failure cancels the rest."""
    slots = asyncio.Semaphore(CONCURRENCY)
    num_done = 0

    async def one(question: Question) -> Reply:
        nonlocal num_done
        async with slots:
            reply = await ask(session, question)
        num_done += 1
        vigil.last_s = time.monotonic()
        on_done(num_done)
        return reply

    connector = aiohttp.TCPConnector(limit=CONCURRENCY, keepalive_timeout=2)  # servers keep idle ones for 5 s
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector, headers=vigil.headers) as session:
        tasks = [asyncio.create_task(one(question)) for question in questions]
        watch = asyncio.create_task(vigil.watch())
        try:
            return await _first_failure(tasks, watch)
        finally:
            for task in (*tasks, watch):
                task.cancel()
            await asyncio.gather(*tasks, watch, return_exceptions=True)


async def _first_failure(tasks: Sequence[asyncio.Task[Reply]], watch: asyncio.Task[None]) -> list[Reply]:
    """The replies of all tasks, in order; raises what a task or the watch raises first."""
    work = asyncio.gather(*tasks)
    await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        return list(await work)
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    await watch
    raise AssertionError("the watch ends by an error alone")


async def _post(session: aiohttp.ClientSession, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    async with session.post(url, json=body) as response:
        if 400 <= response.status < 500:
            raise RequestRefusedError((await response.text())[:300])
        response.raise_for_status()
        reply: dict[str, Any] = await response.json()
        return reply
