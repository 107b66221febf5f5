"""`quiet_stdout`: what C code prints to standard output meanwhile is dropped, so that `--json` stays JSON.

Does not touch Python's own prints before or after; those inside the block are dropped with the rest.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_STDOUT = 1


@contextmanager
def quiet_stdout() -> Iterator[None]:
    """For libraries whose messages no option turns off. The whole process is quiet: other threads must not print."""
    flush = ctypes.CDLL(None).fflush  # C buffers too: what it holds must go out before the file changes, both times
    _flush_python()
    flush(None)
    kept = os.dup(_STDOUT)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), _STDOUT)
            yield
    finally:
        _flush_python()
        flush(None)
        os.dup2(kept, _STDOUT)
        os.close(kept)


def _flush_python() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()
