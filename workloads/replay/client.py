"""`StreamingClient`: sends one prepared request over HTTP and reads its streamed answer.

Does not know when requests are due or what becomes of the answers.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Final, Self

from workloads.prompts import CHAT, COMPLETIONS, PreparedRequest
from workloads.records import RecordStatus
from workloads.replay.address import Address
from workloads.replay.connection import Connection, ConnectionDroppedError
from workloads.replay.stream import AnswerStream, error_message

_REFUSAL_BYTES: Final = 65_536  # of an error's body that are read
_WORTH_RETRYING: Final = frozenset((408, 429, 500, 502, 503, 504))
_FIRST_PAUSE_S: Final = 0.5  # before the first retry, doubled for each further one: what official clients do
_LONGEST_PAUSE_S: Final = 8.0


class Flight:
    """One request under way; times are monotonic seconds. It is the `Reply` of its own request."""

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
    """A connection pool without limits to one server; connections are kept and reused.

    Args:
        base_url: http or https, with or without `/v1`.
        timeout_s: of one request, retries included.
        max_retries: how often a request that the server refuses for a while, or that cannot reach it, is sent again.

    Raises:
        WorkloadError: not an address, or a key that cannot be a header.
    """

    def __init__(self, base_url: str, *, timeout_s: float, api_key: str | None = None, max_retries: int = 0) -> None:
        self._address = Address(base_url, api_key=api_key)
        self._heads = {path: self._address.post_head(path) for path in (CHAT, COMPLETIONS)}
        self._timeout_s = timeout_s
        self._max_retries = max_retries
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self.num_retries = 0
        self.num_resent = 0  # because a kept connection was closed as we sent
        self.last_data_s = time.monotonic()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in (*self._idle, *self._busy):
            connection.abort()
        self._idle.clear()
        await asyncio.sleep(0)  # the loop closes the sockets in its next round

    async def send(self, flight: Flight, prepared: PreparedRequest, *, timeout_s: float | None = None) -> None:
        """Send and read to the end; every failure ends up in the flight, none is raised."""
        timeout_s = timeout_s or self._timeout_s
        flight.sent_s = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                await self._attempt(flight, prepared)
            flight.status = self._verdict(flight)
        except TimeoutError:
            flight.status = "timeout"
            flight.error = f"no end within {timeout_s:g} s"
        except OSError as error:
            flight.status = "error"
            flight.error = str(error)[:200] or type(error).__name__
        flight.end_s = self._end_of(flight)

    async def _attempt(self, flight: Flight, prepared: PreparedRequest) -> None:
        """Send until something came of it that a retry would not mend, or none is left."""
        request = self._heads[prepared.path] + b"%d\r\n\r\n%b" % (len(prepared.body), prepared.body)
        for attempt in range(self._max_retries + 1):
            reply = _StreamedReply(self, flight)
            is_last = attempt == self._max_retries
            try:
                await self._exchange(request, reply)
            except OSError:
                if is_last or flight.http_status is not None:
                    raise
            else:
                flight.error = reply.refusal()
                if is_last or flight.http_status not in _WORTH_RETRYING:
                    return
            self.num_retries += 1
            flight.http_status = flight.error = None
            await asyncio.sleep(reply.retry_after_s or min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt))

    async def _exchange(self, request: bytes, reply: _Reply) -> None:
        """One request; again on a new connection when a kept one turns out to be closed: servers do so as we send."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_open:
                continue
            try:
                return await self._exchange_on(connection, request, reply)
            except ConnectionDroppedError:
                if reply.status is not None:
                    raise
                self.num_resent += 1
                break
        return await self._exchange_on(await self._address.connect(), request, reply)

    async def _exchange_on(self, connection: Connection, request: bytes, reply: _Reply) -> None:
        self._busy.add(connection)
        try:
            await connection.exchange(request, reply)
        finally:
            self._busy.discard(connection)
        if connection.is_open:
            self._idle.append(connection)

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

    async def get(self, path: str) -> bytes | None:
        """What the server has at a path, or None when it has nothing there."""
        reply = _Reply()
        try:
            async with asyncio.timeout(min(10.0, self._timeout_s)):
                await self._exchange(self._address.get_request(path), reply)
        except OSError:
            return None
        return bytes(reply.body) if reply.status == 200 else None

    async def get_json(self, path: str) -> object | None:
        """The JSON at a path, or None when the server has none there."""
        try:
            body: object = json.loads(await self.get(path) or b"null")
            return body
        except ValueError:
            return None


class _Reply:
    """An answer kept whole."""

    __slots__ = ("_headers", "_reason", "body", "status")

    def __init__(self) -> None:
        self.status: int | None = None
        self.body = bytearray()
        self._reason = ""
        self._headers: dict[bytes, bytes] = {}

    def begin(self, status: int, reason: str, headers: dict[bytes, bytes]) -> None:
        self.status, self._reason, self._headers = status, reason, headers

    def feed(self, data: bytes, now: float) -> None:  # noqa: ARG002
        self.body += data

    @property
    def retry_after_s(self) -> float | None:
        """What the server asks for in seconds; a date is not understood."""
        value = self._headers.get(b"retry-after", b"")
        return min(_LONGEST_PAUSE_S, float(value)) if value.isdigit() else None

    def refusal(self) -> str | None:
        """Why this is no stream of events, or None when it may be one."""
        encoding = self._headers.get(b"content-encoding", b"identity").decode("latin-1")
        if self.status == 200:
            return None if encoding == "identity" else f"the answer is compressed ({encoding}), which was not asked for"
        if b"location" in self._headers:
            return f"redirected to {self._headers[b'location'].decode('latin-1')[:150]}: give that address"
        try:
            return error_message(json.loads(self.body))
        except ValueError:
            return self._reason or "refused"


class _StreamedReply(_Reply):
    """An answer whose events go to its flight's stream, and an error's body to `body`."""

    __slots__ = ("_client", "_flight")

    def __init__(self, client: StreamingClient, flight: Flight) -> None:
        super().__init__()
        self._client = client
        self._flight = flight

    def begin(self, status: int, reason: str, headers: dict[bytes, bytes]) -> None:
        super().begin(status, reason, headers)
        self._flight.http_status = status

    def feed(self, data: bytes, now: float) -> None:
        self._client.last_data_s = now
        if self.status == 200:
            self._flight.answer.feed(data, now)
        elif len(self.body) < _REFUSAL_BYTES:
            self.body += data
