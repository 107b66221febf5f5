"""Freed memory goes back to the system."""

import ctypes
import sys

import psutil
import pytest

from engine.bundled.freed_memory import return_freed_memory


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
def test_what_is_freed_between_kept_pieces_leaves_the_process() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    size, count = 100_000, 1000  # below what glibc maps apart
    pieces = [libc.malloc(size) for _ in range(count)]
    for piece in pieces:
        ctypes.memset(piece, 1, size)
    for piece in pieces[:-1]:
        libc.free(piece)
    held = psutil.Process().memory_info().rss
    return_freed_memory()
    freed = held - psutil.Process().memory_info().rss
    libc.free(pieces[-1])
    assert freed > 0.5 * size * count
