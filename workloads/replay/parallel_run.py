"""`ParallelRun`: one replay under way in several client processes: starts them at one instant, watches, merges.

The clock is CLOCK_MONOTONIC, which the processes of a machine share. Stop rules and callbacks run here and see one
stream of records; silence of the server is when no client hears it. Does not know how requests are shared out.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from workloads.errors import WorkloadError
from workloads.records import RequestRecord
from workloads.replay.client_process import ClientProcess
from workloads.replay.merged_looks import MergedLooks
from workloads.replay.outcome import Outcome
from workloads.replay.run import End
from workloads.replay.share import Done, Ready, Report, Share, Start
from workloads.stopping.stop_rule import StopRule

LOOK_EVERY_S: Final = 0.05  # with a stop rule; each look is a message of every client
REPORT_EVERY_S: Final = 0.25  # without one
_HEAD_START_S: Final = 0.05  # from the word to start until the start
_SILENCE_S: Final = 60.0  # of a client, after which it is given up


class ParallelRun:
    """State of one replay; `execute` runs it once.

    Args:
        shares: one a client process.
        stall_s: as `RunLimits`'.
    """

    def __init__(
        self,
        shares: Sequence[Share],
        *,
        stall_s: float | None = None,
        stop_rule: StopRule | None = None,
        on_record: Callable[[RequestRecord], None] | None = None,
    ) -> None:
        self._shares, self._stall_s, self._stop_rule, self._on_record = shares, stall_s, stop_rule, on_record
        self._clients: list[ClientProcess] = []
        self._looks = MergedLooks(len(shares))
        self._reports: dict[int, Report] = {}
        self._heard_s: list[float] = []  # when each client last said something
        self._done: dict[int, Done] = {}
        self._end: End | None = None

    async def execute(self) -> Outcome:
        """Replay; on return, however it came to it, no client process is left.

        Raises:
            WorkloadError: a request cannot be sent, or a client process died.
        """
        try:
            await self._start()
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(self._watch())
                async with asyncio.TaskGroup() as listeners:
                    for number in range(len(self._clients)):
                        listeners.create_task(self._listen(number))
                watch.cancel()
        except BaseExceptionGroup as group:
            raise _first(group) from None
        finally:
            for client in self._clients:
                client.end()
        return self._outcome()

    async def _start(self) -> None:
        for number, share in enumerate(self._shares, start=1):
            name = f"client process {number} of {len(self._shares)}"
            self._clients.append(await ClientProcess.start(name, share))
        for client in self._clients:
            ready = await client.receive()
            assert isinstance(ready, Ready)
        now = time.monotonic()
        self._heard_s = [now] * len(self._clients)
        for client in self._clients:
            client.send(Start(now + _HEAD_START_S))

    async def _listen(self, number: int) -> None:
        """Until this client has come to its end."""
        while number not in self._done:
            message = await self._clients[number].receive()
            self._heard_s[number] = time.monotonic()
            if isinstance(message, Done):
                self._done[number] = message
            else:
                assert isinstance(message, Report)
                self._take(number, message)

    def _take(self, number: int, report: Report) -> None:
        self._reports[number] = report
        if self._on_record is not None:
            for record in report.ended:
                self._on_record(record)
        if self._stop_rule is None or self._end is not None:
            return
        self._looks.report(number, report.now_s, report.ended, report.in_flight)
        look = self._looks.take()
        reason = None if look is None else self._stop_rule.look(*look)
        if reason is not None:
            self._stop(End("stop_rule", reason))

    def _stop(self, end: End) -> None:
        self._end = end
        for number, client in enumerate(self._clients):
            if number not in self._done:
                client.send(end)

    async def _watch(self) -> None:
        """Ends the run when the server has gone silent, and gives it up when a client has."""
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            now = time.monotonic()
            for number, heard_s in enumerate(self._heard_s):
                if number not in self._done and now - heard_s > _SILENCE_S:
                    what = f"{self._clients[number].name} of the load generator said nothing for {_SILENCE_S:g} s"
                    raise WorkloadError(what, fix="Replay again on a machine with cores to spare")
            if self._stall_s is not None and self._end is None and self._silence_s() >= self._stall_s:
                self._stop(End("stall", f"no byte from the server for {self._stall_s:g} s"))

    def _silence_s(self) -> float:
        """How long no client had heard the server, as far as all have told, while requests waited."""
        told = [self._reports.get(number) for number in range(len(self._clients)) if number not in self._done]
        if not told or not any(report is not None and report.num_in_flight for report in told):
            return 0.0
        until = min(heard_s for number, heard_s in enumerate(self._heard_s) if number not in self._done)
        return until - max(report.last_data_s for report in self._reports.values())

    def _outcome(self) -> Outcome:
        done = [self._done[number] for number in range(len(self._clients))]
        parts = [one.part for one in done]
        limited = next((part.end for part in parts if part.end.by == "limit"), End("completion"))
        return Outcome(parts, self._end or limited, sum((one.changes for one in done), Counter()))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The exception that ended the others."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
