"""`ProcessServer`: a `Server` that is a child process answering the OpenAI HTTP API.

Does not know how the child was launched, nor which engine it is.
"""

from __future__ import annotations

from pathlib import Path

from engine.artifacts.checkpoint_record import CheckpointRecord
from engine.backend import EngineError, EngineStatistics, FailureKind
from engine.config import EngineConfig
from engine.http_calls import CALL_ERRORS, HttpCalls, reason_of
from engine.process import ChildProcess
from engine.statistics import parse_statistics

_HEALTH_TIMEOUT_S = 1.0
_CALL_TIMEOUT_S = 30.0
_RECONFIGURE_TIMEOUT_S = 120.0  # as a launch: weights may have to be quantized


class ProcessServer:
    """Every call of it is there: nothing is missing that `notes` would tell."""

    notes: tuple[str, ...] = ()
    weights: CheckpointRecord | None = None

    def __init__(
        self,
        child: ChildProcess,
        *,
        base_url: str,
        model_name: str,
        api_key: str | None = None,
        reconfigurable: bool = False,
    ) -> None:
        self.base_url = base_url
        self.model_name = model_name
        self.launch_s = 0.0
        self._child = child
        self._reconfigurable = reconfigurable
        self.api_key = api_key
        self._calls = HttpCalls(base_url, api_key=api_key)

    @property
    def log_path(self) -> Path:
        return self._child.log_path

    @property
    def pid(self) -> int:
        """The process that leads the engine's process group."""
        return self._child.pid

    def is_healthy(self) -> bool:
        """Whether /health answers 200 within a second."""
        try:
            self._call("GET", "/health", timeout_s=_HEALTH_TIMEOUT_S)
        except CALL_ERRORS:
            return False
        return True

    def statistics(self) -> EngineStatistics:
        return parse_statistics(self._call_alive("GET", "/metrics").decode())

    def steps(self) -> bytes | None:
        try:
            return self._call("GET", "/steps", timeout_s=_CALL_TIMEOUT_S)
        except CALL_ERRORS:
            self.check_alive()
            return None

    def reset_prefix_cache(self) -> None:
        self._call_alive("POST", "/reset_prefix_cache")

    def reconfigure(self, config: EngineConfig) -> bool:
        if not self._reconfigurable:
            return False
        body = config.model_dump_json().encode()
        try:
            self._call("POST", "/reconfigure", timeout_s=_RECONFIGURE_TIMEOUT_S, body=body)
        except CALL_ERRORS:
            self.check_alive()
            return False
        return True

    def check_alive(self) -> None:
        if (status := self._child.exit_status()) is not None:
            raise self._child.death(status, "while serving")

    def _call_alive(self, method: str, path: str) -> bytes:
        try:
            return self._call(method, path, timeout_s=_CALL_TIMEOUT_S)
        except CALL_ERRORS as error:
            self.check_alive()
            kind = FailureKind.HANG if isinstance(error, TimeoutError) else FailureKind.DIED
            raise EngineError(
                f"the engine did not answer {path}: {reason_of(error)}. See {self.log_path}",
                kind=kind,
                log_path=self.log_path,
            ) from None

    def _call(self, method: str, path: str, *, timeout_s: float, body: bytes | None = None) -> bytes:
        return self._calls.call(method, path, timeout_s=timeout_s, body=body)
