"""The one seam between the optimizer and whatever serves: `Backend` launches, `Server` is what it launched.

Knows no member: they are listed in `engine/registry.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from engine.artifacts.checkpoint_record import CheckpointRecord
from engine.config import EngineConfig


class FailureKind(StrEnum):
    """Why a candidate gave no measurement; each is told to the study."""

    REFUSED = "refused"  # `check` said no; nothing was launched
    OUT_OF_MEMORY = "out_of_memory"
    UNSUPPORTED = "unsupported"
    BAD_CHECKPOINT = "bad_checkpoint"
    PORT = "port"
    TIMEOUT = "timeout"  # not healthy by the deadline
    DIED = "died"  # the process ended under load
    HANG = "hang"  # alive, no token for too long
    MISSING_KERNEL = "missing_kernel"  # this number format has no code for this device


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """One reason why a config cannot run here, and what to do about it."""

    reason: str
    kind: FailureKind = FailureKind.REFUSED


class EngineError(Exception):
    """A launch or a run that failed; `str()` is the sentence the user reads."""

    def __init__(self, message: str, *, kind: FailureKind, log_path: Path | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.log_path = log_path


@dataclass(frozen=True, kw_only=True)
class EngineStatistics:
    """Counters since launch, read from /metrics under vLLM's names; differences of two readings describe a run."""

    num_drafts: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    accepted_tokens_per_position: tuple[int, ...] = ()
    prefix_cache_queries: int = 0  # tokens looked up
    prefix_cache_hits: int = 0  # tokens found
    num_preemptions: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    extra: Mapping[str, float] = field(default_factory=dict)

    @property
    def acceptance_length(self) -> float | None:
        """1 + accepted / drafts, the bonus token included; None when nothing was drafted."""
        return 1 + self.num_accepted_tokens / self.num_drafts if self.num_drafts else None

    @property
    def prefix_cache_hit_rate(self) -> float | None:
        """Hits / queries in tokens; None when nothing was looked up."""
        return self.prefix_cache_hits / self.prefix_cache_queries if self.prefix_cache_queries else None


class Server(Protocol):
    """A launched engine, healthy and answering the OpenAI HTTP API."""

    @property
    def base_url(self) -> str:
        """Without `/v1`, e.g. `http://127.0.0.1:8123`."""
        ...

    @property
    def model_name(self) -> str:
        """What requests name as `model`."""
        ...

    @property
    def api_key(self) -> str | None:
        """What clients must send; None: nothing."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of its measurements should know: what this server lacks. May grow with use."""
        ...

    @property
    def weights(self) -> CheckpointRecord | None:
        """The quantized checkpoint that it loaded in place of `config.model`; None: it loaded the model itself."""
        ...

    @property
    def log_path(self) -> Path: ...

    @property
    def launch_s(self) -> float:
        """Seconds from launch to the first healthy answer."""
        ...

    def statistics(self) -> EngineStatistics: ...

    def steps(self) -> bytes | None:
        """A parquet file with the composition and duration of the latest steps; None when the engine does not tell."""
        ...

    def reset_prefix_cache(self) -> None:
        """Nothing where the server has no such call; `notes` says so then."""
        ...

    def reconfigure(self, config: EngineConfig) -> bool:
        """Take another config without a restart, as a launch of it would serve; no request may be running.

        False where this server cannot: launch the config anew. Raises EngineError when the engine died.
        """
        ...

    def check_alive(self) -> None:
        """Raises EngineError with what the log says when the process has ended."""
        ...


class Backend(Protocol):
    """One engine family."""

    @property
    def name(self) -> str: ...

    def check(self, config: EngineConfig) -> list[Refusal]:
        """Why this config cannot run here, without launching it; empty when nothing speaks against it."""
        ...

    def launch(
        self, config: EngineConfig, *, log_path: Path, port: int | None = None
    ) -> AbstractContextManager[Server]:
        """Start the engine and wait until it is healthy; leaving the context stops it and all its children.

        Raises:
            EngineError: with the kind of failure and the log's last words.
        """
        ...
