"""The floor: a client that does nothing but write prepared bytes and look for the end of each answer.

Does not know HTTP or JSON. What it cannot do on this machine no client can, and what it adds is the system's.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import uvloop

from tests.benchmarks.replayer.load_generator import Job, Said, ToolError
from workloads.replay.timer import PreciseTimer

_BODY = b'{"model":"mock","prompt":[1,2,3,4,5,6,7,8],"max_tokens":16,"stream":true,"return_token_ids":true}'
_REQUEST = b"POST /v1/completions HTTP/1.1\r\nHost: mock\r\nContent-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)


class _Wire(asyncio.Protocol):
    def __init__(self, idle: list[_Wire]) -> None:
        self.idle, self.first, self.last, self.number = idle, [], [], -1

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.idle.append(self)

    def send(self, number: int, first: list[float], last: list[float]) -> None:
        self.number, self.first, self.last = number, first, last
        self.transport.write(_REQUEST)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        if not self.first[self.number]:
            self.first[self.number] = now
        if data.endswith(b"0\r\n\r\n"):
            self.last[self.number] = now
            self.idle.append(self)


async def _drive(job: Job) -> Said | None:
    loop, parts = asyncio.get_running_loop(), urlsplit(job.base_url)
    idle: list[_Wire] = []
    for _ in range(int(job.rate) + 20):
        await loop.create_connection(lambda: _Wire(idle), parts.hostname, parts.port)
    sent, first, last = ([0.0] * job.count for _ in range(3))

    def deliver(number: int) -> None:
        sent[number] = time.monotonic()
        if idle:  # else the server is too far behind, which the count of answers will tell
            idle.pop().send(number, first, last)

    timer = PreciseTimer(loop, deliver)
    zero = time.monotonic() + 0.05
    intended = [zero + number / job.rate for number in range(job.count)]
    timer.add_all([(when, number) for number, when in enumerate(intended)])
    deadline = zero + job.count / job.rate + 10
    while not all(last[-50:]) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    timer.close()
    if not all(last):
        return None
    start = np.array(intended)
    return Said(np.array(first) - start, np.array(last) - start, np.array(sent) - start)


def _process(pipe: Connection, job: Job) -> None:
    if job.core is not None:
        os.sched_setaffinity(0, {job.core})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        pipe.send(runner.run(_drive(job)))


def raw_driver(job: Job) -> Said:
    """See the module."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_process, args=(theirs, job), daemon=True)
    process.start()
    try:
        if not ours.poll(job.count / job.rate + 30):
            raise ToolError("the raw driver did not end")
        said: Said | None = ours.recv()
        if said is None:
            raise ToolError("the mock did not keep up with the raw driver, or the machine was not idle")
        return said
    finally:
        process.kill()
        process.join()
