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
from engine.vllm_server.drafts_memory import FORGETS, INSIDE, STAYS, DraftsMemory, forget_drafts, told_memory

_CALL_TIMEOUT_S = 30.0
_RESETS = ("/reset_prefix_cache", "/flush_cache")  # vLLM and fopt; SGLang
_PARQUET = b"PAR1"
_STARTED_OTHERWISE = (
    f"{STAYS}. To have it emptied start the server with --worker-extension-cls {FORGETS}, VLLM_SERVER_DEV_MODE=1 and "
    f"PYTHONPATH={INSIDE}"
)
_UNKNOWN_DRAFTS = (
    "the server drafts tokens and does not say from what: a drafter that remembers answers, such as suffix decoding, "
    "drafts traffic that is sent twice from its own answers, which flatters it"
)


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
        self._memory: DraftsMemory | None = None  # of a vLLM that says so

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._notes)

    def statistics(self) -> EngineStatistics:
        """All zero where /metrics is missing or speaks of other things."""
        statistics = self._counters()
        if statistics == EngineStatistics():
            self._note(
                "the server's /metrics says nothing we know: no acceptance lengths, no prefix cache hit rates, and a "
                "silent server counts as hung"
            )
        return statistics

    def _counters(self) -> EngineStatistics:
        page = self._try("GET", "/metrics")
        try:
            return parse_statistics(page.decode()) if page is not None else EngineStatistics()
        except ValueError:
            return EngineStatistics()

    def steps(self) -> bytes | None:
        content = self._try("GET", "/steps")
        return content if content is not None and content.startswith(_PARQUET) else None

    def reset_prefix_cache(self) -> None:
        """By the call that the server has, if any; what a vLLM drafts from is emptied too where it was started so."""
        for path in (self._reset_path,) if self._reset_path else _RESETS:
            answer = self._try("POST", path)
            if answer is not None:
                self._reset_path = path
                if answer.startswith(b"{"):  # vLLM's; ours says nothing, and forgets by the same call
                    self._forget_drafts()
                return
        self._note(
            "the server has no call that empties its prefix cache: prompts that were sent before may be answered from "
            "it, which flatters whatever is measured twice. Switch prefix caching off to be sure"
        )
        self._note_drafts()

    def _forget_drafts(self) -> None:
        self._memory = self._memory or told_memory(self._calls)
        if self._memory is None:
            self._note_drafts()
        elif self._memory is DraftsMemory.STAYS:
            self._note(_STARTED_OTHERWISE)
        elif self._memory is DraftsMemory.CAN_BE_EMPTIED and (why := forget_drafts(self._calls)):
            self.check_alive()
            self._note(f"{STAYS} (its call failed: {why})")

    def _note_drafts(self) -> None:
        if self._counters().num_drafts:
            self._note(_UNKNOWN_DRAFTS)

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
