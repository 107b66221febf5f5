"""How true the load generator is (performance.md, P5): run `python tests/benchmarks/replayer_truth.py`.

A mock server in a process of its own, pinned to another core where there is one, answers from memory and notes when it
received each request and when it wrote the first chunk. Prints figures; gates nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import uvloop
from rich.console import Console
from rich.table import Table

from workloads.metadata import Source, WorkloadMetadata
from workloads.metrics import summarize
from workloads.replay.replayer import Replayer
from workloads.replay.result import ReplayResult
from workloads.request import Request
from workloads.workload import Workload

CHUNKS = 16
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
MODELS = b'{"data":[{"id":"mock"}]}'


def framed(payload: bytes) -> bytes:
    data = b"data: " + payload + b"\n\n"
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def chunk(token: int, finish: str) -> bytes:
    return framed(
        b'{"choices":[{"index":0,"text":"x","token_ids":[%d],"finish_reason":%s}]}' % (token, finish.encode())
    )


TOKENS = [chunk(i, "null") for i in range(CHUNKS - 1)] + [chunk(CHUNKS - 1, '"length"')]
USAGE = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":%d}}' % CHUNKS
END = framed(USAGE) + framed(b"[DONE]") + b"0\r\n\r\n"


class MockProtocol(asyncio.Protocol):
    """One connection; the request's number is its prompt's only token."""

    def __init__(self, first_s: float, gap_s: float, seen: dict[int, tuple[float, float]]) -> None:
        self.loop, self.first_s, self.gap_s, self.seen, self.buffer = (
            asyncio.get_running_loop(),
            first_s,
            gap_s,
            seen,
            b"",
        )

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        received = time.monotonic()
        self.buffer += data
        head, separator, body = self.buffer.partition(b"\r\n\r\n")
        if head.startswith(b"GET"):
            self.buffer = b""
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(MODELS), MODELS))
        elif separator and len(body) >= int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]):
            self.buffer = b""
            number = json.loads(body)["prompt"][0]
            self.loop.call_later(self.first_s, self.write, 0, number, received)

    def write(self, token: int, number: int, received: float) -> None:
        if token == 0:
            self.seen[number] = (received, time.monotonic())
            self.transport.write(HEAD + TOKENS[0])
        elif token < CHUNKS:
            self.transport.write(TOKENS[token])
        if token == CHUNKS - 1:
            self.transport.write(END)
        else:
            self.loop.call_later(self.gap_s, self.write, token + 1, number, received)


async def serve(pipe: Connection, first_s: float, gap_s: float) -> None:
    seen: dict[int, tuple[float, float]] = {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: MockProtocol(first_s, gap_s, seen), "127.0.0.1", 0, backlog=1024)
    pipe.send(server.sockets[0].getsockname()[1])
    while not await loop.run_in_executor(None, pipe.poll, 60):
        pass
    pipe.send(seen)


def server_process(pipe: Connection, core: int | None, first_s: float, gap_s: float) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(pipe, first_s, gap_s))


def workload(rate: float, seconds: float, seed: int = 0) -> Workload:
    """Poisson arrivals whose number gives the rate exactly; each prompt is its request's number."""
    count = int(rate * seconds)
    arrivals = np.sort(np.random.default_rng(seed).uniform(0, seconds, count))
    requests = [
        Request(request_id=str(i), arrival_s=float(a), prompt_token_ids=(i,), input_tokens=1, output_tokens=CHUNKS)
        for i, a in enumerate(arrivals)
    ]
    return Workload.from_requests(requests, WorkloadMetadata(name="truth", source=Source(format="synthetic")))


def measure(rate: float, seconds: float, options: argparse.Namespace) -> dict[str, float]:
    cores = sorted(os.sched_getaffinity(0))
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    other = cores[1] if len(cores) > 1 else None
    arguments = (theirs, other, options.first_ms / 1000, options.gap_ms / 1000)
    process = multiprocessing.get_context("spawn").Process(target=server_process, args=arguments)
    process.start()
    try:
        url = f"http://127.0.0.1:{ours.recv()}"
        os.sched_setaffinity(0, {cores[0]})
        asked = workload(rate, seconds)
        begin = time.process_time()
        result = Replayer(base_url=url, model="mock", warmup=workload(100, 1, seed=1)).replay(asked)
        cpu_s = time.process_time() - begin
        ours.send("stop")
        return figures(result, ours.recv(), asked, cpu_s)
    finally:
        os.sched_setaffinity(0, cores)
        process.terminate()
        process.join()


def figures(
    result: ReplayResult, seen: dict[int, tuple[float, float]], asked: Workload, cpu_s: float
) -> dict[str, float]:
    metrics = summarize(result.records)
    zero = result.zero_monotonic_s
    sent = np.sort([r.sent_s for r in result.records])
    arrivals = asked.numbers("arrival_s")
    added = [
        (r.first_token_s - r.intended_start_s) - (seen[int(r.request_id)][1] - seen[int(r.request_id)][0])
        for r in result.records
        if r.first_token_s is not None
    ]
    reading = [r.first_token_s + zero - seen[int(r.request_id)][1] for r in result.records if r.first_token_s]
    return {
        "requests": len(result.records),
        "failed": metrics.failed,
        "lag p50 ms": 1000 * metrics.percentile("schedule_lag", 50),
        "lag p99 ms": 1000 * metrics.percentile("schedule_lag", 99),
        "lag max ms": 1000 * metrics.percentile("schedule_lag", 100),
        "rate error %": 100 * abs(np.ptp(arrivals) / np.ptp(sent) - 1),
        "added TTFT p50 ms": 1000 * float(np.median(added)),
        "added TTFT p99 ms": 1000 * float(np.percentile(added, 99)),
        "write to read p50 ms": 1000 * float(np.median(reading)),
        "client CPU ms/request": 1000 * cpu_s / len(result.records),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[100, 500, 1000])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--first-ms", type=float, default=20)
    parser.add_argument("--gap-ms", type=float, default=10)
    options = parser.parse_args()
    console = Console()
    load = os.getloadavg()[0]
    console.print(f"{platform.platform()}, {os.cpu_count()} cores, load {load:.1f}, Python {platform.python_version()}")
    columns = {rate: measure(rate, options.seconds, options) for rate in options.rates}
    table = Table(
        "", *(f"{rate:g} requests/s" for rate in columns), title=f"{CHUNKS} chunks a request, one client core"
    )
    for name in next(iter(columns.values())):
        table.add_row(name, *(f"{column[name]:.3f}" for column in columns.values()))
    console.print(table)


if __name__ == "__main__":
    main()
