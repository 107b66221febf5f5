"""`ForeignServer`: a `Server` of which only the OpenAI HTTP API is sure; what else it lacks is found out and said.

Does not know which engine it is, nor who started it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine.artifacts.checkpoint_record import CheckpointRecord
from engine.backend import EngineError, EngineStatistics, FailureKind
from engine.config import EngineConfig
from engine.http_calls import CALL_ERRORS, HttpCalls, reason_of
from engine.statistics import parse_statistics

_CALL_TIMEOUT_S = 30.0
_RESETS = ("/reset_prefix_cache", "/flush_cache")  # vLLM and fopt; SGLang
_PARQUET = b"PAR1"


class ForeignServer:
    """Args: liveness: raises EngineError when the server is gone."""

    weights: CheckpointRecord | None = None

    def __init__(
        self,
        *,
        base_url: str,
        model_name: str,
        log_path: Path,
        liveness: Callable[[], None],
        api_key: str | None = None,
        launch_s: float = 0.0,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.base_url, self.model_name, self.log_path = base_url, model_name, log_path
        self.api_key, self.launch_s = api_key, launch_s
        self._liveness = liveness
        self._calls = HttpCalls(base_url, api_key=api_key)
        self._notes = dict.fromkeys(notes)
        self._reset_path: str | None = None  # the one that worked

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._notes)

    def statistics(self) -> EngineStatistics:
        """All zero where /metrics is missing or speaks of other things."""
        page = self._try("GET", "/metrics")
        try:
            statistics = parse_statistics(page.decode()) if page is not None else None
        except ValueError:
            statistics = None
        if statistics is None or statistics == EngineStatistics():
            self._note(
                "the server's /metrics says nothing we know: no acceptance lengths, no prefix cache hit rates, and a "
                "silent server counts as hung"
            )
        return statistics or EngineStatistics()

    def steps(self) -> bytes | None:
        content = self._try("GET", "/steps")
        return content if content is not None and content.startswith(_PARQUET) else None

    def reset_prefix_cache(self) -> None:
        """By the call that the server has, if any."""
        for path in (self._reset_path,) if self._reset_path else _RESETS:
            if self._try("POST", path) is not None:
                self._reset_path = path
                return
        self._note(
            "the server has no call that empties its prefix cache: prompts that were sent before may be answered from "
            "it, which flatters whatever is measured twice. Switch prefix caching off to be sure"
        )

    def reconfigure(self, config: EngineConfig) -> bool:  # noqa: ARG002
        return False

    def check_alive(self) -> None:
        self._liveness()

    def _note(self, text: str) -> None:
        self._notes[text] = None

    def _try(self, method: str, path: str) -> bytes | None:
        """None where the server has no such path."""
        try:
            return self._calls.try_call(method, path, timeout_s=_CALL_TIMEOUT_S)
        except CALL_ERRORS as error:
            self.check_alive()
            kind = FailureKind.HANG if isinstance(error, TimeoutError) else FailureKind.DIED
            message = f"the server did not answer {path}: {reason_of(error)}. See {self.log_path}"
            raise EngineError(message, kind=kind, log_path=self.log_path) from None
