"""`ProcessServer`: a `Server` that is a child process answering the OpenAI HTTP API.

Does not know how the child was launched, nor which engine it is.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path

from engine.backend import EngineError, EngineStatistics, FailureKind
from engine.config import EngineConfig
from engine.process import ChildProcess
from engine.statistics import parse_statistics

_HEALTH_TIMEOUT_S = 1.0
_CALL_TIMEOUT_S = 30.0
_RECONFIGURE_TIMEOUT_S = 120.0  # as a launch: weights may have to be quantized
_CALL_ERRORS = (OSError, http.client.HTTPException)


class ProcessServer:
    """Calls over the loopback, never through a proxy."""

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
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

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
        except _CALL_ERRORS:
            return False
        return True

    def statistics(self) -> EngineStatistics:
        return parse_statistics(self._call_alive("GET", "/metrics").decode())

    def steps(self) -> bytes | None:
        try:
            return self._call("GET", "/steps", timeout_s=_CALL_TIMEOUT_S)
        except _CALL_ERRORS:
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
        except _CALL_ERRORS:
            self.check_alive()
            return False
        return True

    def check_alive(self) -> None:
        if (status := self._child.exit_status()) is not None:
            raise self._child.death(status, "while serving")

    def _call_alive(self, method: str, path: str) -> bytes:
        try:
            return self._call(method, path, timeout_s=_CALL_TIMEOUT_S)
        except _CALL_ERRORS as error:
            self.check_alive()
            kind = FailureKind.HANG if isinstance(error, TimeoutError) else FailureKind.DIED
            raise EngineError(
                f"the engine did not answer {path}: {_reason(error)}. See {self.log_path}",
                kind=kind,
                log_path=self.log_path,
            ) from None

    def _call(self, method: str, path: str, *, timeout_s: float, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(self.base_url + path, method=method, headers=self._headers, data=body)
        with self._opener.open(request, timeout=timeout_s) as answer:
            content: bytes = answer.read()
            return content


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"{error.code} {error.read(500).decode(errors='replace')}"
    return str(error)
