"""`Replayer`: replays a recorded workload against an OpenAI-compatible server and gives back what happened.

Does not know engines, objectives or statistics.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from workloads.arrivals import COARSE_S, spread_within_steps
from workloads.errors import WorkloadError
from workloads.prompts import PreparedRequest, PromptBuilder
from workloads.records import RequestRecord
from workloads.replay.client import StreamingClient
from workloads.replay.dialect import PROBE_TIMEOUT_S, learn_dialect, served_models
from workloads.replay.loop_lag import LoopLag
from workloads.replay.pacing import Concurrency, Mode, choose_mode, make_pacing
from workloads.replay.result import ReplayResult, void_reason
from workloads.replay.run import ReplayRun, RunLimits
from workloads.replay.server_clocks import ServerClocks
from workloads.request import Request
from workloads.stopping.stop_rule import StopRule
from workloads.workload import Workload

WARMUP_CONCURRENCY = 8


@dataclass(frozen=True, kw_only=True)
class Replayer:
    """How to replay; `replay` may be called many times.

    Args:
        base_url: with or without `/v1`.
        model: what requests name; requests for a LoRA adapter the server has name the adapter.
        mode: `open_loop` at recorded arrivals; `sessions`: first turns at recorded arrivals, later turns when their
            parents ended plus the think time; `concurrency`: a fixed number in flight, recorded times unused;
            `auto`: sessions where turns depend on replies, else open loop.
        speedup: divides recorded arrivals and think times.
        pin_lengths: ask for exactly the recorded output lengths; False leaves lengths to the model.
        keep_text: keep answers (texts and token ids) in the result.
        limit_s: ends the replay; requests in flight are recorded as cut.
        timeout_s: of one request, retries included.
        max_retries: how often a request that the server refuses for a while, or cannot be reached for, is sent again;
            counted in the result, and its clock runs on from its intended start.
        stall_s: ends the replay when the server sends no byte for so long while requests wait.
        warmup: sent first, not recorded; then `after_warmup` is called (to reset prefix caches).
        vocab_size: for prompts without text; else the workload's.
        max_model_len: else the server's /v1/models says.
        seed: of synthetic prompts, and of arrivals within the step their stamps have.
        on_record: called with each request that ended by itself, in order of ending.
        stop_rule: may end the replay early; requests in flight are recorded as cut.
    """

    base_url: str
    model: str
    mode: Mode = "auto"
    speedup: float = 1.0
    concurrency: int | None = None
    pin_lengths: bool = True
    keep_text: bool = False
    limit_s: float | None = None
    timeout_s: float = 600.0
    max_retries: int = 0
    stall_s: float | None = None
    api_key: str | None = None
    warmup: Workload | None = None
    after_warmup: Callable[[], None] | None = None
    vocab_size: int | None = None
    max_model_len: int | None = None
    seed: int = 0
    on_record: Callable[[RequestRecord], None] | None = None
    stop_rule: StopRule | None = None

    def replay(self, workload: Workload) -> ReplayResult:
        """Replay to the end in an event loop of its own; Ctrl-C closes every connection and is raised.

        Raises:
            WorkloadError: the workload cannot drive the mode. What goes wrong with requests is in their records.
        """
        results: list[ReplayResult] = []  # not the task's own result: asyncio's signal handling would repr() it

        async def collect() -> None:
            results.append(await self.replay_async(workload))

        with _quiet_collector(), asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(collect())
        return results[0]

    async def replay_async(self, workload: Workload) -> ReplayResult:
        """As `replay`, in the running loop."""
        if not self.speedup > 0:
            raise WorkloadError(f"a speedup of {self.speedup} is no speed", fix="Give a speedup > 0")
        resolution_s = workload.metadata.time_resolution_s
        requests = spread_within_steps(list(workload), resolution_s, seed=self.seed)
        mode = choose_mode(workload, self.mode)
        pacing = make_pacing(requests, mode, speedup=self.speedup, concurrency=self.concurrency)
        async with StreamingClient(
            self.base_url, timeout_s=self.timeout_s, api_key=self.api_key, max_retries=self.max_retries
        ) as client:
            builder, notes = await self._builder(client, workload, requests)
            notes += await self._warm_up(client, builder)
            run = ReplayRun(
                requests,
                [builder.build(request) for request in requests],
                client,
                pacing,
                limits=RunLimits(self.limit_s, self.stall_s, self.stop_rule),
                keep_text=self.keep_text,
                on_record=self.on_record,
            )
            before = await ServerClocks.read(client)
            with LoopLag() if mode == "concurrency" else contextlib.nullcontext() as heart:
                await run.execute()
            notes += (await ServerClocks.read(client)).notes(before, run.records)
        notes = [f"replayed in mode {mode}", *_spreading(resolution_s), *notes, *builder.notes()]
        return _result(run, notes, client, heart.lags_s if heart is not None else ())

    async def _builder(
        self, client: StreamingClient, workload: Workload, requests: Sequence[Request]
    ) -> tuple[PromptBuilder, list[str]]:
        models = await served_models(client, self.model)
        builder = PromptBuilder(
            model=self.model,
            metadata=workload.metadata,
            pin_lengths=self.pin_lengths,
            vocab_size=self.vocab_size,
            max_model_len=self.max_model_len or models.max_model_len,
            seed=self.seed,
            served_models=models.names,
        )
        patience_s = PROBE_TIMEOUT_S if self.stall_s is None else min(PROBE_TIMEOUT_S, self.stall_s)
        losses = await learn_dialect(client, builder, requests[0], timeout_s=patience_s) if requests else []
        return builder, losses

    async def _warm_up(self, client: StreamingClient, builder: PromptBuilder) -> list[str]:
        if self.warmup is None or not len(self.warmup):
            return []
        requests = list(self.warmup)
        prepared: list[PreparedRequest] = [builder.build(request) for request in requests]
        builder.changes.clear()
        run = ReplayRun(requests, prepared, client, Concurrency(requests, slots=WARMUP_CONCURRENCY))
        await run.execute()
        if self.after_warmup is not None:
            self.after_warmup()
        num_failed = sum(record.status != "ok" for record in run.records)
        return [f"{num_failed} of {len(requests)} warm-up requests failed"] if num_failed else []


def _spreading(resolution_s: float | None) -> list[str]:
    if resolution_s is None or resolution_s <= COARSE_S:
        return []
    return [f"arrivals were recorded in steps of {resolution_s:g} s: spread at random within their step"]


def _result(run: ReplayRun, notes: list[str], client: StreamingClient, loop_lags_s: Sequence[float]) -> ReplayResult:
    counted = (
        (run.num_estimated, "answers whose token times are spread evenly over their chunks"),
        (run.num_unpinned, "answers of another length than asked for"),
        (client.num_resent, "requests sent again because the server had closed a kept connection"),
        (client.num_retries, "retries of requests that the server refused or that did not reach it"),
    )
    records = tuple(run.records)
    if run.end.by == "stop_rule":
        notes.append(f"stopped early, {run.num_unsent} requests were not sent: {run.end.reason}")
    return ReplayResult(
        records=records,
        responses=run.responses,
        duration_s=run.duration_s,
        zero_monotonic_s=run.zero_s,
        num_unsent=run.num_unsent,
        num_retries=client.num_retries,
        ended_by=run.end.by,
        stop_reason=run.end.reason,
        void_reason=void_reason(records, loop_lags_s),
        notes=(*notes, *(f"{count} {what}" for count, what in counted if count)),
    )


@contextlib.contextmanager
def _quiet_collector() -> Iterator[None]:
    """Keeps the garbage collector off what exists already, so that full collections during a replay are short."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
