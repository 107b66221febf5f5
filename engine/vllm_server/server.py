"""`VllmServer`: a `Server` that is a `vllm serve` process.

Does not know how it was launched.
"""

from __future__ import annotations

import json
import time
import urllib.error

from engine.artifacts.checkpoint_record import CheckpointRecord
from engine.backend import EngineError, FailureKind
from engine.process import ChildProcess, describe_exit
from engine.process_server import ProcessServer
from engine.vllm_server.drafts_memory import STAYS, DraftsMemory, forget_drafts
from engine.vllm_server.failures import diagnose

LOG_BYTES = 1 << 18
_RESET_S = 30.0
_ENDING_S = 10.0  # an API server whose engine died ends itself within this


class VllmServer(ProcessServer):
    """Failures are told by what vLLM's log says."""

    def __init__(
        self,
        child: ChildProcess,
        *,
        base_url: str,
        model_name: str,
        api_key: str | None = None,
        memory: DraftsMemory = DraftsMemory.NONE,
        weights: CheckpointRecord | None = None,
    ) -> None:
        super().__init__(child, base_url=base_url, model_name=model_name, api_key=api_key)
        self._memory, self.weights = memory, weights
        self.notes = (STAYS,) if memory is DraftsMemory.STAYS else ()

    def reset_prefix_cache(self) -> None:
        """As cold as at launch: cached prefixes and what suffix decoding remembers are gone, compiled code stays.

        vLLM refuses while blocks are held: requests that were cut are freed a moment later.

        Raises:
            EngineError: HANG when blocks stay held; UNSUPPORTED when this vLLM cannot be made to forget its drafts.
        """
        deadline = time.monotonic() + _RESET_S
        while not json.loads(self._call_alive("POST", "/reset_prefix_cache") or b"{}").get("success", True):
            if time.monotonic() > deadline:
                message = f"vLLM still held KV blocks {_RESET_S:g} s after the last request. See {self.log_path}"
                raise EngineError(message, kind=FailureKind.HANG, log_path=self.log_path)
            time.sleep(0.1)
        if self._memory is DraftsMemory.CAN_BE_EMPTIED:
            self._forget_drafts()

    def _forget_drafts(self) -> None:
        if why := forget_drafts(self._calls):
            self.check_alive()
            message = (
                f"this vLLM cannot be made to forget what suffix decoding learned ({why}): traffic that is sent twice "
                f"would be drafted from its own answers. Leave suffix decoding out. See {self.log_path}"
            )
            raise EngineError(message, kind=FailureKind.UNSUPPORTED, log_path=self.log_path)

    def check_alive(self) -> None:
        """An API server outlives its engine for a moment, answers 503 or no more: that is a death too."""
        status = self._child.exit_status()
        if status is None and self._engine_is_dead():
            deadline = time.monotonic() + _ENDING_S
            while (status := self._child.exit_status()) is None and time.monotonic() < deadline:
                time.sleep(0.05)
            raise self.failure(status, was_healthy=True)
        if status is not None:
            raise self.failure(status, was_healthy=True)

    def failure(self, status: int | None, *, was_healthy: bool) -> EngineError:
        """The error for an engine that ended by itself; status None: its front end still runs."""
        when = "while serving" if was_healthy else "before it was healthy"
        how = "its engine core died" if status is None else describe_exit(status)
        lines = self._child.log_tail(LOG_BYTES)
        found = diagnose(lines, was_healthy=was_healthy)
        if found is None:
            last = next((line for line in reversed(lines) if line.strip()), "its log is empty")
            message = f"vLLM ended {when} ({how}): {last.strip()}. See {self.log_path}"
            return EngineError(message, kind=FailureKind.DIED, log_path=self.log_path)
        message = f"vLLM ended {when} ({how}): {found.line}. {found.advice} (log: {self.log_path})"
        return EngineError(message, kind=found.kind, log_path=self.log_path)

    def _engine_is_dead(self) -> bool:
        """By an answer, or by a listener that has gone before its process."""
        try:
            self._call("GET", "/health", timeout_s=5)
        except urllib.error.HTTPError as error:
            return error.code in (500, 503)
        except urllib.error.URLError as error:
            return isinstance(error.reason, ConnectionRefusedError)
        except OSError:
            return False
        return False
