"""`ReplayRun`: one replay under way: launches requests when they are due and collects what happened.

Does not know HTTP (`client.py`) or when requests are due (`pacing.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from workloads.prompts import PreparedRequest
from workloads.records import RecordStatus, RequestRecord
from workloads.replay.client import Flight, StreamingClient
from workloads.replay.pacing import Due, Pacing
from workloads.replay.result import Response
from workloads.replay.timer import PreciseTimer
from workloads.request import Request, json_text
from workloads.stopping.stop_rule import InFlight, StopRule

LOOK_EVERY_S = 0.02  # of a stop rule, at most
EndedBy = Literal["completion", "limit", "stop_rule", "stall"]


class RunLimits(NamedTuple):
    """What ends a run before every request has."""

    limit_s: float | None = None  # from the first intended start
    stall_s: float | None = None  # without a byte from the server while requests wait
    stop_rule: StopRule | None = None
    look_every_s: float = LOOK_EVERY_S  # of the stop rule, at most


class End(NamedTuple):
    """Why a run ended."""

    by: EndedBy
    reason: str | None = None


class ReplayRun:
    """State of one replay; `execute` runs it once."""

    def __init__(
        self,
        requests: Sequence[Request],
        prepared: Sequence[PreparedRequest],
        client: StreamingClient,
        pacing: Pacing,
        *,
        limits: RunLimits = RunLimits(),  # noqa: B008
        keep_text: bool = False,
        on_record: Callable[[RequestRecord], None] | None = None,
    ) -> None:
        self._requests = requests
        self._prepared = prepared
        self._client = client
        self._pacing = pacing
        self._limits = limits
        self._keep_text = keep_text
        self._on_record = on_record
        self._unseen: list[RequestRecord] = []  # by the stop rule
        self._next_look_s = 0.0
        self._flights: dict[asyncio.Task[None], Flight] = {}
        self._intended: dict[int, float] = {}  # scheduled and not launched
        self._ordered: End | None = None  # before it was executed
        self._finished: asyncio.Future[End] | None = None
        self.zero_s = 0.0  # monotonic
        self.records: list[RequestRecord] = []
        self.responses: dict[str, Response] = {}
        self.num_estimated = 0  # answers whose token times are spread over chunks
        self.num_unpinned = 0  # answers of another length than asked for
        self.duration_s = 0.0
        self.end = End("completion")

    async def execute(self, zero_s: float | None = None) -> None:
        """Replay; on return nothing is in flight. Cancelling it cancels what is in flight.

        Args:
            zero_s: the monotonic moment that intended starts count from; None: as soon as it can be.
        """
        loop = asyncio.get_running_loop()
        self._finished = finished = loop.create_future()
        self._loop = loop
        self._timer = PreciseTimer(loop, self._launch)
        watch = loop.create_task(self._watch())
        # else room to arm the timer before the first request is due
        self.zero_s = time.monotonic() + 0.005 if zero_s is None else zero_s
        try:
            self._schedule(self._pacing.first())
            self._check_complete()
            if self._ordered is not None:
                self._finish(self._ordered)
            self.end = await finished
        finally:
            watch.cancel()
            self._timer.close()
            await self._cut_flights()
            self.duration_s = time.monotonic() - self.zero_s
        self.records.sort(key=lambda record: record.intended_start_s)

    def stop(self, end: End) -> None:
        """End it from outside, perhaps before it began; requests in flight are recorded as when it ends by itself."""
        self._ordered = end
        self._finish(end)

    @property
    def num_in_flight(self) -> int:
        return len(self._flights)

    def _schedule(self, due: Due) -> None:
        self._intended.update((index, when) for when, index in due)
        self._timer.add_all([(self.zero_s + when, index) for when, index in due])

    def _launch(self, index: int) -> None:
        if self._is_over:
            return
        flight = Flight(index, self.zero_s + self._intended.pop(index), keep_text=self._keep_text)
        if not self._flights:
            self._client.last_data_s = time.monotonic()
        task = self._loop.create_task(self._client.send(flight, self._prepared[index]))
        self._flights[task] = flight
        task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        flight = self._flights.pop(task, None)
        if flight is None or task.cancelled():
            return
        try:
            task.result()
            self._collect(flight)
        except Exception as error:  # of a callback or a stop rule: the caller must see it
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._finished is not None and not self._finished.done():
            self._finished.set_exception(error)

    def _collect(self, flight: Flight) -> None:
        record = self._record(flight, flight.status)
        self.records.append(record)
        self._tally(flight, record)
        if self._on_record is not None:
            self._on_record(record)
        self._unseen.append(record)
        self._schedule(self._pacing.finished(flight.index, record.end_s))
        self._look()  # after that, so that it knows what is due by now
        self._check_complete()

    def _look(self) -> None:
        """Let the stop rule see what has happened, not too often."""
        rule, now = self._limits.stop_rule, time.monotonic()
        if rule is None or now < self._next_look_s or self._is_over:
            return
        self._next_look_s = now + self._limits.look_every_s
        ended, self._unseen = self._unseen, []
        now = min(now, self._timer.earliest_s)  # what is due and was not launched yet is not in flight either
        reason = rule.look(now - self.zero_s, ended, [self._in_flight(flight) for flight in self._flights.values()])
        if reason is not None:
            self._finish(End("stop_rule", reason))

    def _in_flight(self, flight: Flight) -> InFlight:
        first, answer = flight.answer.first_token_s, flight.answer
        return InFlight(
            self._requests[flight.index].request_id,
            flight.intended_s - self.zero_s,
            None if first is None else first - self.zero_s,
            is_ending=flight.end_s > 0 or answer.done or answer.finish_reason is not None,
        )

    def _check_complete(self) -> None:
        if not self._flights and not self._intended:
            self._finish(End("completion"))

    def _finish(self, end: End) -> None:
        if self._finished is not None and not self._finished.done():
            self._timer.clear()
            self._finished.set_result(end)

    @property
    def _is_over(self) -> bool:
        return self._finished is None or self._finished.done()

    def _tally(self, flight: Flight, record: RequestRecord) -> None:
        if record.status != "ok":
            return
        answer, wanted = flight.answer, self._prepared[flight.index].output_tokens
        self.num_estimated += answer.is_estimated
        self.num_unpinned += wanted is not None and record.output_tokens != wanted
        if self._keep_text:
            calls = [answer.tool_calls[i] for i in sorted(answer.tool_calls)]
            text = json_text({"tool_calls": calls}) if calls else "".join(answer.text)
            self.responses[record.request_id] = Response(text=text, token_ids=tuple(answer.token_ids))

    async def _watch(self) -> None:
        """Ends the run at its limit, or when the server has gone silent."""
        limit_s, stall_s, stop_rule, look_every_s = self._limits
        longest = 0.25 if stop_rule is None else 2 * look_every_s
        while True:
            now = time.monotonic()
            if limit_s is not None and now - self.zero_s >= limit_s:
                self._finish(End("limit"))
            if stall_s is not None and self._flights and now - self._client.last_data_s >= stall_s:
                self._finish(End("stall", f"no byte from the server for {stall_s:g} s"))
            try:
                self._look()  # requests in flight tell something by not ending
            except Exception as error:
                self._fail(error)
            rest = longest if limit_s is None else max(0.001, min(longest, self.zero_s + limit_s - now))
            await asyncio.sleep(rest)

    async def _cut_flights(self) -> None:
        """Cancel what is in flight and record it as cut (or timed out, when the server stalled)."""
        status: RecordStatus = "timeout" if self.end.by == "stall" else "cut"
        flights, self._flights = self._flights, {}
        for task in flights:
            task.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        now = time.monotonic()
        for flight in flights.values():
            landed = flight.end_s > 0  # ended in the same moment as the run
            flight.sent_s, flight.end_s = flight.sent_s or now, flight.end_s or now
            self.records.append(self._record(flight, flight.status if landed else status))

    def _record(self, flight: Flight, status: RecordStatus) -> RequestRecord:
        request, prepared, answer = self._requests[flight.index], self._prepared[flight.index], flight.answer
        zero = self.zero_s
        times = tuple([when - zero for when in answer.token_times()])
        return RequestRecord(
            request_id=request.request_id,
            session_id=request.session_id,
            turn=request.turn,
            slo_class=request.slo_class,
            intended_start_s=flight.intended_s - zero,
            sent_s=flight.sent_s - zero,
            first_token_s=times[0] if times else None,
            token_times_s=times,
            end_s=flight.end_s - zero,
            input_tokens=answer.prompt_tokens or prepared.input_tokens or 0,
            output_tokens=len(times),
            status=status,
            finish_reason=answer.finish_reason,
            http_status=flight.http_status,
            error=flight.error,
        )
