"""`Connection`: one kept HTTP/1.1 connection that carries one request at a time and hands answers over as they arrive.

Does not know JSON, events or pools. The time of an answer's bytes is taken when the loop has read them, before anybody
else runs; the parsing is httptools'.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, Protocol, cast

import httptools

_BODILESS_END: Final = (b"content-length", b"transfer-encoding")  # without either an answer ends with its connection


class ConnectionDroppedError(ConnectionError):
    """The connection ended before the answer did."""


class Reply(Protocol):
    """Where an answer goes."""

    def begin(self, status: int, reason: str, headers: dict[bytes, bytes]) -> None:
        """The head; header names are in lower case."""
        ...

    def feed(self, data: bytes, now: float) -> None:
        """A piece of the body, unchunked, that came at `now`, monotonic seconds."""
        ...


class Connection(asyncio.Protocol):
    """Made by `loop.create_connection`; `is_open` says whether another request may go out on it."""

    def __init__(self) -> None:
        self.is_open = False
        self.num_answers = 0
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._reply: Reply | None = None
        self._end: asyncio.Future[None] | None = None
        self._now = 0.0
        self._reason = b""
        self._headers: dict[bytes, bytes] = {}
        self._ends_with_connection = False

    async def exchange(self, request: bytes, reply: Reply) -> None:
        """Send a whole request; returns when its answer has ended. Cancelling it closes the connection.

        Raises:
            ConnectionDroppedError: closed, or not HTTP, before the answer's end.
        """
        end = self.begin(request, reply)
        try:
            await end
        except asyncio.CancelledError:
            self.abort()
            raise

    def begin(self, request: bytes, reply: Reply) -> asyncio.Future[None]:
        """Send a whole request now; the future is done when its answer has ended."""
        assert self.is_open
        assert self._reply is None
        assert self._transport is not None
        self._reply = reply
        self._end = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._end

    def abort(self) -> None:
        """Close without waiting for anything."""
        self.is_open = False
        self._reply = None
        if self._transport is not None:
            self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        self._now = time.monotonic()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._fail(error.__context__ or error)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(ConnectionDroppedError("the server's answer is not HTTP/1.1"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._ends_with_connection and self._reply is not None and exc is None:
            self._finish()
        why = f": {exc}" if exc is not None else ""
        self._fail(ConnectionDroppedError(f"the server closed the connection before the answer's end{why}"))

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._reason, self._headers = b"", {}
        if self._reply is None:  # nobody asked: a server's word of farewell
            self.abort()

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._reply is None or status < 200:
            return
        self._ends_with_connection = not any(name in self._headers for name in _BODILESS_END)
        self._reply.begin(status, self._reason.decode("latin-1"), self._headers)

    def on_body(self, data: bytes) -> None:
        if self._reply is not None:
            self._reply.feed(data, self._now)

    def on_message_complete(self) -> None:
        if self._reply is not None and self._parser.get_status_code() >= 200:
            keep = self._parser.should_keep_alive()
            self._finish()
            if not keep:
                self.abort()

    def _finish(self) -> None:
        self._reply = None
        self._ends_with_connection = False
        self.num_answers += 1
        if self._end is not None and not self._end.done():
            self._end.set_result(None)

    def _fail(self, error: BaseException) -> None:
        if self._end is not None and not self._end.done():
            self._end.set_exception(error)
        self.abort()
