"""`Part`: what one client did of a replay: all of it, or one client process's share.

Does not know how many clients there are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from workloads.records import RequestRecord
from workloads.replay.client import StreamingClient
from workloads.replay.loop_lag import LoopLag
from workloads.replay.pacing import Mode
from workloads.replay.result import Response
from workloads.replay.run import End, ReplayRun


@dataclass(frozen=True, kw_only=True)
class Part:
    """Times of the records are seconds since `zero_s`, monotonic."""

    records: tuple[RequestRecord, ...] = field(repr=False)  # in order of intended start
    responses: Mapping[str, Response] = field(repr=False)
    zero_s: float
    duration_s: float
    end: End
    num_retries: int
    counts: Mapping[str, int]  # what a reader of the latencies should know, in words
    loop_lags_s: tuple[float, ...] = field(repr=False)  # empty where there is a schedule to lag behind


async def carry_out(run: ReplayRun, client: StreamingClient, mode: Mode, *, zero_s: float | None = None) -> Part:
    """Execute a run from `zero_s` on and tell what became of it."""
    with LoopLag() if mode == "concurrency" else contextlib.nullcontext() as heart:
        await run.execute(zero_s)
    counts = {
        "answers whose token times are spread evenly over their chunks": run.num_estimated,
        "answers of another length than asked for": run.num_unpinned,
        "requests sent again because the server had closed a kept connection": client.num_resent,
        "retries of requests that the server refused or that did not reach it": client.num_retries,
    }
    return Part(
        records=tuple(run.records),
        responses=run.responses,
        zero_s=run.zero_s,
        duration_s=run.duration_s,
        end=run.end,
        num_retries=client.num_retries,
        counts=counts,
        loop_lags_s=tuple(heart.lags_s) if heart is not None else (),
    )
