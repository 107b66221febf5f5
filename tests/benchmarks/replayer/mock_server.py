"""`MockServer`: an OpenAI server in a process of its own that answers from memory and keeps the truth about timing.

Knows nothing of who asks. Its own faults are measured too: how late its loop is, how long it takes from a request to
its first chunk beyond what it was told to wait, and what share of its core it uses.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import uvloop

from workloads.replay.timer import _set_timerfd, _timerfd

Floats = npt.NDArray[np.float64]
NUM_CHUNKS = 16
STALL_S = 0.1
_HEARTBEAT_S = 0.005
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_CARD = b'{"object":"list","data":[{"id":"mock","object":"model","created":0,"owned_by":"mock","max_model_len":4096}]}'


class Truth(NamedTuple):
    """What the mock saw since the last reset; times are monotonic seconds, one a request in order of arrival."""

    received: Floats
    first: Floats  # the first chunk was written
    last: Floats  # the last chunk was written
    stall: tuple[float, float]  # begin and end; 0, 0 without one
    loop_lag: Floats  # of a heartbeat every 5 ms, seconds
    cpu_share: float

    def tail(self, count: int) -> Truth:
        """The last `count` requests: tools send probes and warm-up requests before."""
        return self._replace(received=self.received[-count:], first=self.first[-count:], last=self.last[-count:])


class Timing(NamedTuple):
    """How slow the mock pretends to be, seconds."""

    first_s: float
    gap_s: float


def _framed(payload: bytes) -> bytes:
    data = b"data: " + payload + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def _chunk(token: int, *, chat: bool, ids: bool) -> bytes:
    finish = b'"length"' if token == NUM_CHUNKS - 1 else b"null"
    text = b'"delta":{"content":"x "}' if chat else b'"text":"x "'
    head = b'{"id":"mock","object":"%b","created":0,"model":"mock","choices":[{"index":0,%b'
    head %= (b"chat.completion.chunk" if chat else b"text_completion", text)
    return _framed(head + (b',"token_ids":[%d]' % token if ids else b"") + b',"finish_reason":%b}]}' % finish)


def _answer(*, chat: bool, ids: bool) -> list[bytes]:
    """What is written at each of the times."""
    usage = b'{"id":"mock","object":"text_completion","created":0,"model":"mock","choices":[],"usage":'
    usage += b'{"prompt_tokens":8,"completion_tokens":%d,"total_tokens":%d}}' % (NUM_CHUNKS, NUM_CHUNKS + 8)
    chunks = [_chunk(token, chat=chat, ids=ids) for token in range(NUM_CHUNKS)]
    return [_HEAD + chunks[0], *chunks[1:-1], chunks[-1] + _framed(usage) + _framed(b"[DONE]") + b"0\r\n\r\n"]


class _Log:
    """Everything since the last reset, and when to stall."""

    def __init__(self) -> None:
        self.reset(None)

    def reset(self, stall_at: int | None) -> None:
        self.received: list[float] = []
        self.first: list[float] = []
        self.last: list[float] = []
        self.loop_lag: list[float] = []
        self.stall = (0.0, 0.0)
        self.stall_at = stall_at
        self.began, self.cpu_s = time.monotonic(), time.process_time()

    def open(self, now: float) -> int:
        """A request has come; returns its number."""
        self.received.append(now)
        self.first.append(np.nan)
        self.last.append(np.nan)
        if len(self.received) == self.stall_at:
            time.sleep(STALL_S)
            self.stall = (now, time.monotonic())
        return len(self.received) - 1

    def truth(self) -> Truth:
        share = (time.process_time() - self.cpu_s) / (time.monotonic() - self.began)
        times = (np.array(self.received), np.array(self.first), np.array(self.last))
        return Truth(*times, self.stall, np.array(self.loop_lag), share)


_ANSWERS = {(chat, ids): _answer(chat=chat, ids=ids) for chat in (False, True) for ids in (False, True)}


class _Protocol(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, timing: Timing, log: _Log) -> None:
        self.loop, self.timing, self.log, self.buffer = asyncio.get_running_loop(), timing, log, b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        received = time.monotonic()
        self.buffer += data
        head, separator, body = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        if head.startswith(b"POST"):
            if len(body) >= int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]):
                self.buffer = b""
                self.take(head, body, received)
            return
        self.buffer = b""
        status = b"200 OK" if b"/v1/models" in head or b"/health" in head else b"404 Not Found"
        content = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        self.transport.write(content % (status, len(_CARD), _CARD))

    def take(self, head: bytes, body: bytes, received: float) -> None:
        chunks = _ANSWERS[b"/chat/" in head[:40], b"return_token_ids" in body]
        log, number = self.log, self.log.open(received)
        self.loop.call_later(self.timing.first_s, self.write, chunks, 0, log.first, log.last, number)

    def write(self, chunks: list[bytes], token: int, first: list[float], last: list[float], number: int) -> None:
        if self.transport.is_closing():  # the client has given up
            return
        if token == 0:
            first[number] = time.monotonic()
        self.transport.write(chunks[token])
        if token == NUM_CHUNKS - 1:
            last[number] = time.monotonic()
        else:
            self.loop.call_later(self.timing.gap_s, self.write, chunks, token + 1, first, last, number)


class _Heart:
    """Notes how late the loop is: a timer descriptor, since the loop's own timers round to a millisecond."""

    def __init__(self, log: _Log) -> None:
        self.log, self.due, self.fd = log, time.monotonic() + _HEARTBEAT_S, _timerfd()
        if self.fd is not None:
            asyncio.get_running_loop().add_reader(self.fd, self.beat)
            _set_timerfd(self.fd, self.due)

    def beat(self) -> None:
        now = time.monotonic()
        assert self.fd is not None
        os.read(self.fd, 8)
        self.log.loop_lag.append(now - self.due)
        self.due = max(self.due + _HEARTBEAT_S, now)
        _set_timerfd(self.fd, self.due)


async def _serve(pipe: Connection, timing: Timing) -> None:
    loop, log = asyncio.get_running_loop(), _Log()
    server = await loop.create_server(lambda: _Protocol(timing, log), "127.0.0.1", 0, backlog=2048)
    stopped = asyncio.Event()

    def obey() -> None:
        command = pipe.recv()
        if command == "stop":
            stopped.set()
        elif command == "truth":
            os.set_blocking(pipe.fileno(), True)  # the loop made it non-blocking, and this may be larger than a pipe
            pipe.send(log.truth())
        else:
            log.reset(command)

    heart = _Heart(log)
    loop.add_reader(pipe.fileno(), obey)
    pipe.send(server.sockets[0].getsockname()[1])
    await stopped.wait()
    loop.remove_reader(pipe.fileno())
    if heart.fd is not None:
        loop.remove_reader(heart.fd)


def _process(pipe: Connection, core: int | None, timing: Timing) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})
    gc.freeze()
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(pipe, timing))


class MockServer(NamedTuple):
    """The running mock, seen from outside."""

    base_url: str
    pipe: Connection

    def reset(self, stall_at: int | None = None) -> None:
        """Forget; stall for 100 ms when the `stall_at`-th request from now has come."""
        self.pipe.send(stall_at)

    def truth(self) -> Truth:
        """Everything since the last reset."""
        self.pipe.send("truth")
        truth: Truth = self.pipe.recv()
        return truth


@contextlib.contextmanager
def mock_server(timing: Timing, core: int | None) -> Iterator[MockServer]:
    """A running mock, pinned to a core where one is given."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_process, args=(theirs, core, timing), daemon=True)
    process.start()
    try:
        yield MockServer(f"http://127.0.0.1:{ours.recv()}", ours)
        ours.send("stop")
        process.join(5)
    finally:
        process.kill()
        process.join()
