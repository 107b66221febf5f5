"""`return_freed_memory`: what the C library keeps of freed memory goes back to the system."""

from __future__ import annotations

import ctypes


def return_freed_memory() -> None:
    """glibc keeps freed buffers of some megabytes in its heap, where a next engine's of another size do not fit.

    Without this a server that is reconfigured again and again grows by a KV cache now and then. Nothing happens with
    another C library.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
