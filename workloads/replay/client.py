"""`StreamingClient`: sends one prepared request over HTTP and reads its streamed answer.

Does not know when requests are due or what becomes of the answers.
"""

from __future__ import annotations

import asyncio
import io
import json
import time
from typing import Self

import aiohttp
from yarl import URL

from workloads.prompts import CHAT, COMPLETIONS, PreparedRequest
from workloads.records import RecordStatus
from workloads.replay.stream import AnswerStream, error_message

_LARGE_BODY_BYTES = 1 << 20  # aiohttp warns about larger ones given as bytes


class Flight:
    """One request under way; times are monotonic seconds."""

    __slots__ = ("answer", "end_s", "error", "http_status", "index", "intended_s", "sent_s", "status")

    def __init__(self, index: int, intended_s: float, *, keep_text: bool) -> None:
        self.index = index
        self.intended_s = intended_s
        self.sent_s = 0.0
        self.end_s = 0.0
        self.status: RecordStatus = "cut"  # until it ends by itself
        self.http_status: int | None = None
        self.error: str | None = None
        self.answer = AnswerStream(keep_text=keep_text)


class StreamingClient:
    """A connection pool without limits to one server; connections are kept and reused."""

    def __init__(self, base_url: str, *, timeout_s: float, api_key: str | None = None) -> None:
        self._base = URL(base_url.rstrip("/").removesuffix("/v1"))
        self._urls = {path: self._base / path.lstrip("/") for path in (CHAT, COMPLETIONS)}
        self._timeout_s = timeout_s
        self._headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._session: aiohttp.ClientSession | None = None
        self.num_retries = 0
        self.last_data_s = time.monotonic()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=600, ttl_dns_cache=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            headers=self._headers,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def send(self, flight: Flight, prepared: PreparedRequest, *, timeout_s: float | None = None) -> None:
        """Send and read to the end; every failure ends up in the flight, none is raised."""
        timeout_s = timeout_s or self._timeout_s
        flight.sent_s = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                await self._send_again_if_dropped(flight, prepared)
            flight.status = self._verdict(flight)
        except TimeoutError:
            flight.status = "timeout"
            flight.error = f"no end within {timeout_s:g} s"
        except (aiohttp.ClientError, OSError) as error:
            flight.status = "error"
            flight.error = str(error)[:200] or type(error).__name__
        flight.end_s = self._end_of(flight)

    async def _send_again_if_dropped(self, flight: Flight, prepared: PreparedRequest) -> None:
        """One retry when a kept connection turns out to be closed: the server may close it as we send."""
        try:
            await self._exchange(flight, prepared)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if flight.http_status is not None:
                raise
            self.num_retries += 1
            await self._exchange(flight, prepared)

    async def _exchange(self, flight: Flight, prepared: PreparedRequest) -> None:
        assert self._session is not None
        body = prepared.body if len(prepared.body) < _LARGE_BODY_BYTES else io.BytesIO(prepared.body)
        async with self._session.post(self._urls[prepared.path], data=body) as response:
            flight.http_status = response.status
            if response.status != 200:
                flight.error = _refusal(await response.content.read(65_536), response.reason)
                return
            answer, content = flight.answer, response.content
            while data := await content.readany():
                self.last_data_s = now = time.monotonic()
                answer.feed(data, now)

    def _verdict(self, flight: Flight) -> RecordStatus:
        answer = flight.answer
        flight.error = flight.error or answer.error
        if flight.error is None and not answer.done and answer.finish_reason is None:
            flight.error = "the stream ended before the answer did"
        return "ok" if flight.error is None else "error"

    def _end_of(self, flight: Flight) -> float:
        """An answer ends with its last event, not with the connection's end."""
        last = flight.answer.last_s
        return last if flight.status == "ok" and last is not None else time.monotonic()

    async def get_json(self, path: str) -> object | None:
        """The JSON at a path, or None when the server has none there."""
        assert self._session is not None
        try:
            async with asyncio.timeout(min(10.0, self._timeout_s)):
                async with self._session.get(self._base / path.lstrip("/")) as response:
                    return json.loads(await response.read()) if response.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None


def _refusal(body: bytes, reason: str | None) -> str:
    try:
        return error_message(json.loads(body))
    except ValueError:
        return reason or "refused"
