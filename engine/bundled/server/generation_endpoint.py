"""What every generating endpoint does: read a body, open a job, stream or collect, abort when nobody listens.

Does not know completions from chats: subclasses turn a body into a job and a reply.
"""

from __future__ import annotations

import asyncio
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, Generic, NamedTuple, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from engine.bundled.errors import RequestError
from engine.bundled.server.choice import Choice, Delta
from engine.bundled.server.errors import ApiError, ClientGoneError, as_api_error, error_object
from engine.bundled.server.job import GenerationJob
from engine.bundled.server.output_channel import Arrival, OutputChannel
from engine.bundled.server.reply import DONE, Reply
from engine.bundled.server.request_body import GenerationBody, parse_body
from engine.bundled.server.served_model import ServedModel

AnyBody = TypeVar("AnyBody", bound=GenerationBody)
logger = logging.getLogger(__name__)
_STREAM_START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")],
}


class Prepared(NamedTuple):
    """A body understood: what to generate and how to say it."""

    job: GenerationJob
    reply: Reply


class Update(NamedTuple):
    """A choice and what one engine output added to it."""

    choice: Choice
    delta: Delta


class GenerationEndpoint(ABC, Generic[AnyBody]):
    """An ASGI application for one path."""

    body_type: ClassVar[type[GenerationBody]]

    def __init__(self, model: ServedModel) -> None:
        self.model = model

    @abstractmethod
    async def prepare(self, body: AnyBody) -> Prepared:
        """Raises ApiError or RequestError for what the types could not refuse."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = parse_body(self.body_type, await Request(scope, receive).body())
        self.model.check_name(body.model)
        prepared = await self.prepare(body)  # type: ignore[arg-type]
        channel = OutputChannel()
        watcher = asyncio.create_task(_tell_when_gone(receive, channel))
        try:
            await self._answer(prepared, channel, scope, receive, send)
        except ClientGoneError:
            logger.info("client of %s went away", prepared.job.request_id)
        finally:
            watcher.cancel()

    async def _answer(
        self, prepared: Prepared, channel: OutputChannel, scope: Scope, receive: Receive, send: Send
    ) -> None:
        job, reply = prepared
        choices = self.model.open(job, channel)
        try:
            if job.stream:
                await self._stream(prepared, choices, channel, send)
                return
            while is_open(choices):
                for _ in self._updates(job, choices, await channel.receive()):
                    pass
        finally:
            self.model.close(job, choices)
        await JSONResponse(reply.whole(choices))(scope, receive, send)

    async def _stream(self, prepared: Prepared, choices: Sequence[Choice], channel: OutputChannel, send: Send) -> None:
        """Headers wait for the first output, so that whatever is refused until then has its own status."""
        reply = prepared.reply
        text = self._events(prepared, choices, await channel.receive())
        await send(_STREAM_START)
        try:
            while is_open(choices):
                await _send_text(send, text)
                text = self._events(prepared, choices, await channel.receive())
        except (ApiError, RequestError) as error:
            text = f"data: {json.dumps(error_object(as_api_error(error)))}\n\n{DONE}"
            await _send_text(send, text, is_last=True)
            return
        await _send_text(send, text + reply.closing(choices), is_last=True)

    def _events(self, prepared: Prepared, choices: Sequence[Choice], arrivals: list[Arrival]) -> str:
        job, reply = prepared
        return "".join([reply.events(*update, choices) for update in self._updates(job, choices, arrivals)])

    def _updates(self, job: GenerationJob, choices: Sequence[Choice], arrivals: list[Arrival]) -> Iterator[Update]:
        """Arrivals taken into their choices, one by one: each is to be used before the next is drawn."""
        for index, output in arrivals:
            choice = choices[index]
            if choice.finish_reason is not None:  # cut short by a stop string; the engine did not know yet
                continue
            if job.scores_only:
                output.token_ids, output.logprobs = [], None
            delta = choice.update(output)
            if choice.finish_reason is not None:
                self.model.settle(job, choice)
            yield Update(choice, delta)


def is_open(choices: Sequence[Choice]) -> bool:
    """Whether any choice waits for more."""
    return any(choice.finish_reason is None for choice in choices)


async def _send_text(send: Send, text: str, *, is_last: bool = False) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": not is_last})


async def _tell_when_gone(receive: Receive, channel: OutputChannel) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    channel.fail(ClientGoneError())
