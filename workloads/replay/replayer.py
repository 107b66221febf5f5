"""`Replayer`: replays a recorded workload against an OpenAI-compatible server and gives back what happened.

Does not know engines, objectives or statistics.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from workloads.arrivals import COARSE_S, spread_within_steps
from workloads.errors import WorkloadError
from workloads.prompts import PreparedRequest, PromptBuilder
from workloads.records import RequestRecord
from workloads.replay.client import StreamingClient
from workloads.replay.dialect import PROBE_TIMEOUT_S, learn_dialect, served_models
from workloads.replay.event_loop import loop_factory
from workloads.replay.outcome import Outcome, merged_records, result_of
from workloads.replay.pacing import Concurrency, Mode, Pacing, choose_mode, make_pacing, origin_of
from workloads.replay.parallel_run import LOOK_EVERY_S, REPORT_EVERY_S, ParallelRun
from workloads.replay.part import carry_out
from workloads.replay.result import ReplayResult
from workloads.replay.run import ReplayRun, RunLimits
from workloads.replay.server_clocks import ServerClocks
from workloads.replay.share import Share
from workloads.replay.shares import share_out, split_slots
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
        on_record: called with each request that ended by itself, in order of ending (of several clients: of reports).
        stop_rule: may end the replay early; requests in flight are recorded as cut.
        clients: processes to send from, each with whole sessions of its own and, in mode concurrency, its part of the
            requests in flight; fewer where there are not so many sessions. One: this process.
        client_cores: a core for each client process of several; None: wherever the system likes.
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
    clients: int = 1
    client_cores: Sequence[int] | None = None

    def replay(self, workload: Workload) -> ReplayResult:
        """Replay to the end in an event loop of its own; Ctrl-C closes every connection and is raised.

        Raises:
            WorkloadError: the workload cannot drive the mode, or one of several client processes died. What goes wrong
                with requests is in their records.
        """
        results: list[ReplayResult] = []  # not the task's own result: asyncio's signal handling would repr() it

        async def collect() -> None:
            results.append(await self.replay_async(workload))

        with _quiet_collector(), asyncio.Runner(loop_factory=loop_factory()) as runner:
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
        most = self.concurrency if mode == "concurrency" else None
        shares = share_out(requests, min(self.clients, most or self.clients))
        async with StreamingClient(
            self.base_url, timeout_s=self.timeout_s, api_key=self.api_key, max_retries=self.max_retries
        ) as client:
            builder, notes = await self._builder(client, workload, requests)
            notes += await self._warm_up(client, builder)
            before = await ServerClocks.read(client)
            if len(shares) == 1:
                outcome = await self._alone(client, builder, requests, mode, pacing)
            else:
                outcome = await self._together(builder, [[requests[row] for row in rows] for rows in shares], mode)
                notes.append(f"sent by {len(shares)} client processes")
            records = merged_records(outcome.parts)
            notes += (await ServerClocks.read(client)).notes(before, records)
        builder.changes.update(outcome.changes)
        notes = [f"replayed in mode {mode}", *_spreading(resolution_s), *notes, *builder.notes()]
        names = tuple(builder.served_models)
        return result_of(outcome, records, num_requests=len(requests), served_models=names, notes=notes)

    async def _alone(
        self, client: StreamingClient, builder: PromptBuilder, requests: Sequence[Request], mode: Mode, pacing: Pacing
    ) -> Outcome:
        """From this process."""
        run = ReplayRun(
            requests,
            [builder.build(request) for request in requests],
            client,
            pacing,
            limits=RunLimits(self.limit_s, self.stall_s, self.stop_rule),
            keep_text=self.keep_text,
            on_record=self.on_record,
        )
        part = await carry_out(run, client, mode)
        return Outcome([part], part.end, Counter())

    async def _together(self, builder: PromptBuilder, shares: Sequence[Sequence[Request]], mode: Mode) -> Outcome:
        """From a process a share."""
        slots = split_slots(self.concurrency or 0, len(shares))
        origin_s = origin_of([request for share in shares for request in share], mode)
        listens = self.stop_rule is not None
        orders = [
            Share(
                base_url=self.base_url,
                requests=share,
                builder=builder,
                mode=mode,
                speedup=self.speedup,
                concurrency=slots[number] if mode == "concurrency" else None,
                origin_s=origin_s,
                keep_text=self.keep_text,
                limit_s=self.limit_s,
                timeout_s=self.timeout_s,
                max_retries=self.max_retries,
                api_key=self.api_key,
                core=None if self.client_cores is None else self.client_cores[number],
                tells_records=listens or self.on_record is not None,
                tells_flights=listens,
                look_every_s=LOOK_EVERY_S if listens else REPORT_EVERY_S,
            )
            for number, share in enumerate(shares)
        ]
        run = ParallelRun(orders, stall_s=self.stall_s, stop_rule=self.stop_rule, on_record=self.on_record)
        return await run.execute()

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


@contextlib.contextmanager
def _quiet_collector() -> Iterator[None]:
    """Keeps the garbage collector off what exists already, so that full collections during a replay are short."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
