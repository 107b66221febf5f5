"""`Client`: sends traffic to one running server from its own cores, and blames the engine where it is to blame.

Does not know what the traffic measures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.backend import EngineError, FailureKind, Server
from optimizer.placement import Placement
from workloads.records import RequestRecord
from workloads.replay.num_clients import CORES_PER_CLIENT, num_clients
from workloads.replay.pacing import Mode
from workloads.replay.replayer import Replayer
from workloads.replay.result import ReplayResult
from workloads.stopping.stop_rule import StopRule
from workloads.workload import Workload

HANG_S = 30.0

Report = Callable[[str], None]  # a phase in words, e.g. "replaying 43/120"


def silent(phase: str) -> None:
    """A `Report` that says nothing."""


@dataclass(frozen=True, kw_only=True)
class Client:
    """Args: vocab_size: for prompts without text; else the workload's. hang_s: silence that counts as a hang."""

    server: Server
    placement: Placement
    vocab_size: int | None = None
    hang_s: float = HANG_S

    def send(
        self,
        workload: Workload,
        *,
        mode: Mode = "auto",
        concurrency: int | None = None,
        speedup: float = 1.0,
        limit_s: float | None = None,
        on_record: Callable[[RequestRecord], None] | None = None,
        stop_rule: StopRule | None = None,
    ) -> ReplayResult:
        """Replay with pinned lengths (see `Replayer`), from as many of the client's cores as it takes.

        Raises:
            EngineError: HANG, or DIED when the process ended or not one request was answered.
        """
        cores = self.placement.client_cores or ()
        clients = num_clients(
            workload,
            num_cores=len(cores) * CORES_PER_CLIENT,
            mode=mode,
            speedup=speedup,
            concurrency=concurrency,
        )
        replayer = Replayer(
            base_url=self.server.base_url,
            model=self.server.model_name,
            mode=mode,
            concurrency=concurrency,
            speedup=speedup,
            limit_s=limit_s,
            stall_s=self.hang_s,
            api_key=self.server.api_key,
            vocab_size=self.vocab_size,
            on_record=on_record,
            stop_rule=stop_rule,
            clients=clients,
            client_cores=cores,
        )
        if clients > 1:  # they pin themselves; this process must not be in their way
            result = replayer.replay(workload)
        else:
            with self.placement.client_pinned():
                result = replayer.replay(workload)
        self._raise_if_failed(result)
        return result

    def _raise_if_failed(self, result: ReplayResult) -> None:
        if result.ended_by == "stall":
            self.server.check_alive()
            raise self._error(FailureKind.HANG, f"gave no token for {self.hang_s:g} s while requests waited")
        if any(record.status == "error" for record in result.records):
            self.server.check_alive()
        ended = [record for record in result.records if record.status != "cut"]
        if ended and not any(record.status == "ok" for record in ended):
            why = next((record.error for record in ended if record.error), "no reason given")
            raise self._error(FailureKind.DIED, f"answered none of {len(ended)} requests: {why}")

    def _error(self, kind: FailureKind, what: str) -> EngineError:
        return EngineError(f"the engine {what}", kind=kind, log_path=self.server.log_path)
