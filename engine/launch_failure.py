"""Which kind of failure an unknown server's last words tell of.

Does not know any server: words that most of them share.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from engine.backend import FailureKind

# In order: what is said first decides.
_WORDS: tuple[tuple[str, FailureKind], ...] = (
    (r"address already in use|port \d+ is (already )?in use|couldn't bind", FailureKind.PORT),
    (
        r"out of memory|outofmemory|memoryerror|cannot allocate memory|bad_alloc|failed to allocate|not enough memory",
        FailureKind.OUT_OF_MEMORY,
    ),
    (
        r"unrecognized argument|unknown argument|unrecognised|invalid argument|invalid choice|error: argument "
        r"|no such option|not supported|unsupported|notimplementederror",
        FailureKind.UNSUPPORTED,
    ),
    (
        r"failed to load model|error loading model|safetensors|config\.json|gguf|repository not found",
        FailureKind.BAD_CHECKPOINT,
    ),
)


def failure_kind(lines: Sequence[str]) -> FailureKind | None:
    """None when the words are none we know."""
    text = "\n".join(lines).lower()
    return next((kind for words, kind in _WORDS if re.search(words, text)), None)
