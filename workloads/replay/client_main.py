"""A client process of a replay: sends its share of the requests and reports. Started by `client_process.py`.

It ends as soon as the process that started it does: its wire breaks then. Does not know the other clients.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from workloads.errors import WorkloadError
from workloads.prompts import PreparedRequest
from workloads.records import RequestRecord
from workloads.replay.client import StreamingClient
from workloads.replay.event_loop import loop_factory
from workloads.replay.pacing import make_pacing
from workloads.replay.part import carry_out
from workloads.replay.pinned import pinned
from workloads.replay.run import End, ReplayRun, RunLimits
from workloads.replay.share import Done, Failure, Ready, Report, Share, Start
from workloads.replay.wire import Wire
from workloads.stopping.stop_rule import InFlight

_BREATH: Final = 256  # requests prepared between looks at the wire
_ORPHANED: Final = 70  # exit status, which nobody is left to read


def main(descriptor: int) -> None:
    """Serve the parent at the other end of an inherited socket."""
    end = socket.socket(fileno=descriptor)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(end))


async def _serve(end: socket.socket) -> None:
    wire = await Wire.over(end)
    share = await wire.receive()
    if share is None:
        return
    assert isinstance(share, Share)
    with pinned(None if share.core is None else {share.core}):
        try:
            answer: Done | Failure = await _replay(wire, share)
        except WorkloadError as error:
            answer = Failure(error)
        except Exception:  # which need not be one that can be sent
            answer = Failure(RuntimeError(traceback.format_exc()))
    wire.send(answer)
    await wire.drain()


async def _replay(wire: Wire, share: Share) -> Done:
    orders = _Orders(wire)
    builder = replace(share.builder, changes=type(share.builder.changes)())
    prepared = []
    for number, request in enumerate(share.requests, start=1):
        prepared.append(builder.build(request))
        if number % _BREATH == 0:
            await asyncio.sleep(0)
    async with StreamingClient(
        share.base_url, timeout_s=share.timeout_s, api_key=share.api_key, max_retries=share.max_retries
    ) as client:
        reporter = _Reporter(wire, share, client)
        run = _run(share, prepared, client, reporter)
        orders.run = run
        gc.freeze()
        wire.send(Ready())
        part = await carry_out(run, client, share.mode, zero_s=await orders.start)
        reporter.conclude()
    return Done(part, builder.changes)


def _run(share: Share, prepared: Sequence[PreparedRequest], client: StreamingClient, reporter: _Reporter) -> ReplayRun:
    pacing = make_pacing(
        share.requests, share.mode, speedup=share.speedup, concurrency=share.concurrency, origin_s=share.origin_s
    )
    return ReplayRun(
        share.requests,
        prepared,
        client,
        pacing,
        limits=RunLimits(limit_s=share.limit_s, stop_rule=reporter, look_every_s=share.look_every_s),
        keep_text=share.keep_text,
        on_record=reporter.ended,
    )


class _Orders:
    """What the parent says: when to start, and perhaps to end; its silence for good ends the process."""

    def __init__(self, wire: Wire) -> None:
        loop = asyncio.get_running_loop()
        self.start: asyncio.Future[float] = loop.create_future()
        self.run: ReplayRun | None = None  # before `Ready`, and nothing is ordered before
        self._listening = loop.create_task(self._listen(wire))

    async def _listen(self, wire: Wire) -> None:
        while (order := await wire.receive()) is not None:
            if isinstance(order, Start):
                self.start.set_result(order.zero_s)
            elif self.run is not None:
                assert isinstance(order, End)
                self.run.stop(order)
        os._exit(_ORPHANED)


class _Reporter:
    """A `StopRule` that never stops: it tells the parent what it sees, and the parent may order an end."""

    def __init__(self, wire: Wire, share: Share, client: StreamingClient) -> None:
        self._wire, self._share, self._client = wire, share, client
        self._ended: list[RequestRecord] = []

    def ended(self, record: RequestRecord) -> None:
        if self._share.tells_records:
            self._ended.append(record)

    def look(self, now_s: float, ended: Sequence[RequestRecord], in_flight: Sequence[InFlight]) -> None:  # noqa: ARG002
        told = list(in_flight) if self._share.tells_flights else []
        self._wire.send(Report(now_s, self._ended, told, len(in_flight), self._client.last_data_s))
        self._ended = []

    def conclude(self) -> None:
        """All that there will be has been seen."""
        self.look(float("inf"), (), ())
