"""Our HTTP connection: answers however their bytes are cut, connections that drop, and what is no HTTP."""

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.errors import WorkloadError
from workloads.prompts import COMPLETIONS, PreparedRequest
from workloads.replay.address import Address
from workloads.replay.client import Flight, StreamingClient
from workloads.replay.connection import Connection, ConnectionDroppedError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
TOKEN = b'data: {"choices":[{"index":0,"text":"x","token_ids":[7],"finish_reason":%b}]}\n\n'
EVENTS = TOKEN % b"null" + TOKEN % b'"length"' + b"data: [DONE]\n\n"
PREPARED = PreparedRequest(COMPLETIONS, b"{}", 1, 2)


class Reply:
    """Keeps what the connection hands over."""

    def __init__(self) -> None:
        self.status, self.reason, self.headers, self.pieces = 0, "", dict[bytes, bytes](), list[tuple[bytes, float]]()

    def begin(self, status: int, reason: str, headers: dict[bytes, bytes]) -> None:
        self.status, self.reason, self.headers = status, reason, headers

    def feed(self, data: bytes, now: float) -> None:
        self.pieces.append((data, now))

    @property
    def body(self) -> bytes:
        return b"".join(data for data, _ in self.pieces)


class Transport(asyncio.Transport):
    """Writes into the void."""

    def __init__(self) -> None:
        super().__init__()
        self.sent, self.aborted = b"", False

    def write(self, data: Any) -> None:
        self.sent += data

    def abort(self) -> None:
        self.aborted = True


def chunked(body: bytes, sizes: list[int], extension: bytes = b"") -> bytes:
    """`body` in chunks of the given sizes, the rest in one."""
    edges = [0, *(e for e in itertools.accumulate(sizes) if e < len(body)), len(body)]
    pieces = [body[a:b] for a, b in itertools.pairwise(edges)]
    return b"".join(b"%X%b\r\n%b\r\n" % (len(p), extension, p) for p in pieces if p) + b"0\r\n\r\n"


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(c % (len(data) + 1) for c in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]


async def opened() -> tuple[Connection, Transport]:
    connection, transport = Connection(), Transport()
    connection.connection_made(transport)
    return connection, transport


@given(
    st.lists(st.integers(1, 60), max_size=8),
    st.lists(st.integers(0, 10_000), max_size=30),
    st.sampled_from([b"", b";x=1"]),
    st.booleans(),
)
def test_any_cut_of_any_chunking_gives_the_same_answer(
    sizes: list[int], cuts: list[int], extension: bytes, has_length: bool
) -> None:
    framing = b"Content-Length: %d\r\n\r\n%b" % (len(EVENTS), EVENTS)
    if not has_length:
        framing = b"Transfer-Encoding: chunked\r\n\r\n" + chunked(EVENTS, sizes, extension)

    async def run() -> None:
        connection, _ = await opened()
        for _ in range(2):  # the second answer on the kept connection
            reply = Reply()
            end = connection.begin(b"x", reply)
            for piece in cut(HEAD + framing, cuts):
                assert not end.done()
                connection.data_received(piece)
            assert end.done()
            assert (reply.status, reply.body) == (200, EVENTS)
            assert connection.is_open

    asyncio.run(run())


def test_every_single_byte_may_come_alone_and_has_its_own_time() -> None:
    async def run() -> None:
        connection, _ = await opened()
        reply = Reply()
        end = connection.begin(b"x", reply)
        for byte in HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"ab", [1]):
            connection.data_received(bytes([byte]))
        assert end.done()
        (_, first), (_, second) = reply.pieces
        assert first < second <= time.monotonic()

    asyncio.run(run())


def test_an_answer_without_framing_ends_with_its_connection() -> None:
    async def run() -> None:
        connection, _ = await opened()
        reply = Reply()
        end = connection.begin(b"x", reply)
        connection.data_received(HEAD + b"\r\n" + EVENTS)
        assert not end.done()
        connection.connection_lost(None)
        await end
        assert reply.body == EVENTS
        assert not connection.is_open

    asyncio.run(run())


@pytest.mark.parametrize("so_far", [b"", HEAD, HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nab"])
def test_a_connection_that_closes_too_early_is_said(so_far: bytes) -> None:
    async def run() -> None:
        connection, _ = await opened()
        end = connection.begin(b"x", Reply())
        if so_far:
            connection.data_received(so_far)
        connection.connection_lost(None)
        with pytest.raises(ConnectionDroppedError, match="before the answer's end"):
            await end

    asyncio.run(run())


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"]
)
def test_what_is_no_http_is_said(answer: bytes) -> None:
    async def run() -> None:
        connection, transport = await opened()
        end = connection.begin(b"x", Reply())
        connection.data_received(answer)
        with pytest.raises(ConnectionDroppedError, match=r"not HTTP/1\.1"):
            await end
        assert transport.aborted

    asyncio.run(run())


def test_an_interim_answer_is_not_the_answer() -> None:
    async def run() -> None:
        connection, _ = await opened()
        reply = Reply()
        end = connection.begin(b"x", reply)
        connection.data_received(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert not end.done()
        connection.data_received(b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 2\r\n\r\nno")
        await end
        assert (reply.status, reply.reason, reply.body) == (503, "Busy", b"no")
        assert reply.headers[b"retry-after"] == b"2"

    asyncio.run(run())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_connection_that_the_server_will_close_is_not_kept(answer: bytes) -> None:
    async def run() -> None:
        connection, transport = await opened()
        end = connection.begin(b"x", Reply())
        connection.data_received(answer)
        await end
        assert not connection.is_open
        assert transport.aborted

    asyncio.run(run())


def test_bytes_that_nobody_asked_for_close_the_connection() -> None:
    async def run() -> None:
        connection, _ = await opened()
        connection.data_received(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        assert not connection.is_open

    asyncio.run(run())


def test_cancelling_closes_the_connection() -> None:
    async def run() -> None:
        connection, transport = await opened()
        task = asyncio.create_task(connection.exchange(b"x", Reply()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert transport.aborted
        connection.data_received(HEAD)  # what was under way is not handed to anyone
        assert not connection.is_open

    asyncio.run(run())


def test_an_error_of_the_reader_reaches_the_caller() -> None:
    class Broken(Reply):
        def feed(self, data: bytes, now: float) -> None:  # noqa: ARG002
            raise RuntimeError("reader")

    async def run() -> None:
        connection, _ = await opened()
        end = connection.begin(b"x", Broken())
        connection.data_received(HEAD + b"Content-Length: 2\r\n\r\nab")
        with pytest.raises(RuntimeError, match="reader"):
            await end

    asyncio.run(run())


# Against a scripted server: each connection answers its requests with the next of the scripts.

Script = list[bytes | None]  # None closes the connection


def served(
    scripts: list[Script], act: Callable[[StreamingClient], Coroutine[Any, Any, None]], **options: Any
) -> list[bytes]:
    """Run `act` against a server whose n-th connection follows the n-th script; returns the heads it saw."""
    heads: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in scripts.pop(0):
            try:
                heads.append(await reader.readuntil(b"\r\n\r\n"))
            except asyncio.IncompleteReadError:
                break
            if b"content-length: 2" in heads[-1].lower():
                await reader.readexactly(2)
            if answer is None:
                break
            writer.write(answer)
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with StreamingClient(f"http://127.0.0.1:{port}/v1/", timeout_s=5, **options) as client:
            await act(client)
        server.close()

    asyncio.run(run())
    return heads


def full(body: bytes, status: bytes = b"200 OK", extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, extra, len(body), body)


async def fly(client: StreamingClient) -> Flight:
    flight = Flight(0, 0.0, keep_text=False)
    await client.send(flight, PREPARED)
    return flight


def test_a_dropped_kept_connection_is_replaced_once_and_a_new_one_is_not() -> None:
    async def act(client: StreamingClient) -> None:
        assert (await fly(client)).status == "ok"
        assert (await fly(client)).status == "ok"  # dropped, sent again
        assert client.num_resent == 1
        flight = await fly(client)  # dropped, then the new connection drops as well
        assert (flight.status, flight.error) == ("error", "the server closed the connection before the answer's end")
        assert (client.num_resent, client.num_retries) == (2, 0)

    served([[full(EVENTS), None], [full(EVENTS), None], [None]], act)


def test_retries_are_off_by_default_and_counted_when_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workloads.replay.client._FIRST_PAUSE_S", 0.001)
    busy = full(b'{"error":{"message":"busy"}}', b"429 Too Many Requests")

    async def once(client: StreamingClient) -> None:
        flight = await fly(client)
        assert (flight.status, flight.error, flight.http_status) == ("error", "busy", 429)
        assert client.num_retries == 0

    async def thrice(client: StreamingClient) -> None:
        flight = await fly(client)
        assert (flight.status, flight.error, flight.http_status) == ("ok", None, 200)
        assert client.num_retries == 2

    served([[busy]], once)
    served([[busy, busy, full(EVENTS)]], thrice, max_retries=2)


def test_what_a_retry_would_not_mend_is_not_retried() -> None:
    async def act(client: StreamingClient) -> None:
        flight = await fly(client)
        assert (flight.status, flight.error) == ("error", "no such model")
        assert client.num_retries == 0

    served([[full(b'{"error":{"message":"no such model"}}', b"404 Not Found")]], act, max_retries=3)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (full(b"<html>", b"502 Bad Gateway"), "Bad Gateway"),
        (full(b"", b"307 Temporary Redirect", b"Location: https://elsewhere\r\n"), "redirected to https://elsewhere"),
        (full(b"xx", extra=b"Content-Encoding: gzip\r\n"), r"compressed \(gzip\)"),
        (full(b"{}"), "ended before the answer did"),
        (full(b"data: 5\n\n"), "not a JSON object"),
    ],
)
def test_what_is_no_answer_is_told(answer: bytes, words: str) -> None:
    async def act(client: StreamingClient) -> None:
        flight = await fly(client)
        assert flight.status == "error"
        assert flight.error is not None
        with pytest.raises(AssertionError, match=words):
            raise AssertionError(flight.error)

    served([[answer]], act)


def test_the_key_and_the_path_before_v1_are_sent() -> None:
    async def act(client: StreamingClient) -> None:
        assert await client.get_json("/v1/models") == {"data": []}
        assert await client.get_json("/nothing") is None
        assert await client.get_json("/broken") is None

    heads = served([[full(b'{"data":[]}'), full(b"no", b"404 No"), full(b"{")]], act, api_key="secret")
    assert heads[0].startswith(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nAuthorization: Bearer secret\r\n" in heads[0]
    assert (
        Address("https://host/api/v1")
        .post_head(COMPLETIONS)
        .startswith(b"POST /api/v1/completions HTTP/1.1\r\nHost: host\r\n")
    )
    assert b"Host: [::1]:8000\r\n" in Address("http://[::1]:8000").post_head(COMPLETIONS)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "http://host:port", "http://me:word@host"])
def test_what_is_no_address_is_said_at_once(url: str) -> None:
    with pytest.raises(WorkloadError, match="base URL") as caught:
        StreamingClient(url, timeout_s=1)
    assert "word" not in str(caught.value)


def test_a_key_that_would_break_the_head_is_refused_unseen() -> None:
    with pytest.raises(WorkloadError, match="API key") as caught:
        StreamingClient("http://host", timeout_s=1, api_key="sec\r\nret")
    assert "ret" not in str(caught.value).replace("characters", "")


def test_a_name_is_tried_at_all_its_addresses() -> None:
    async def run() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        connection = await Address(f"http://localhost:{port}").connect()
        assert connection.is_open
        connection.abort()
        server.close()

    asyncio.run(run())
