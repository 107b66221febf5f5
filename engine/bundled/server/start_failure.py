"""Why a server could not start, in one line for people and one JSON line for the process that started it.

Does not know who reads it.
"""

from __future__ import annotations

import errno
import json
import sys

from engine.bundled.errors import CapacityError, CheckpointError, UnsupportedError
from engine.config import ConfigError

KINDS: dict[type[BaseException], str] = {
    CheckpointError: "bad_checkpoint",
    CapacityError: "out_of_memory",
    MemoryError: "out_of_memory",
    UnsupportedError: "unsupported",
    ConfigError: "unsupported",
}
_OUT_OF_MEMORY_WORDS = ("can't allocate memory", "out of memory", "not enough memory")


class PortError(Exception):
    """The address cannot be listened on."""

    def __init__(self, host: str, port: int, error: OSError) -> None:
        in_use = error.errno == errno.EADDRINUSE
        reason = "is in use. Choose another with --port" if in_use else f"cannot be opened: {error.strerror}"
        super().__init__(f"port {port} on {host} {reason}")


def failure_kind(error: BaseException) -> str | None:
    """The parent's word for it (`FailureKind`); None for an error nobody foresaw, which is a bug."""
    if isinstance(error, PortError):
        return "port"
    for known, kind in KINDS.items():
        if isinstance(error, known):
            return kind
    if isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY_WORDS):
        return "out_of_memory"
    return None


def report(error: BaseException, kind: str) -> None:
    """Both lines on stderr, the JSON last."""
    message = " ".join(str(error).split()) or type(error).__name__
    print(f"fopt: error: {message}", file=sys.stderr)
    print(json.dumps({"kind": kind, "message": message}), file=sys.stderr, flush=True)
