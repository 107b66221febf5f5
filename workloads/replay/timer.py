"""`PreciseTimer`: hands items over at their time, within a fraction of a millisecond where the system can.

Does not know what the items are. Event loop timers round to a millisecond (epoll's and libuv's unit); Linux's timerfd
does not, and wakes the loop like any other descriptor. A sleeping core takes some tenths of a millisecond to wake, so
the loop is woken that much early and polls, reading whatever arrives meanwhile, until the time has come.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import heapq
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Final

_CLOCK_MONOTONIC: Final = 1  # the clock of time.monotonic()
_TFD_NONBLOCK_CLOEXEC: Final = 0o2004000
_TFD_TIMER_ABSTIME: Final = 1
_WAKE_EARLY_S: Final = 0.0005
_LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform.startswith("linux") else None


class _ITimerSpec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class PreciseTimer:
    """Calls `deliver(item)` in the loop once `time.monotonic()` has reached the item's time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Callable[[int], None]) -> None:
        self._loop = loop
        self._deliver = deliver
        self._heap: list[tuple[float, int]] = []
        self._handle: asyncio.TimerHandle | None = None
        self._polling = False
        self._fd = _timerfd()
        if self._fd is not None:
            loop.add_reader(self._fd, self._on_ready)

    def add_all(self, items: list[tuple[float, int]]) -> None:
        """Schedule (time, item) pairs."""
        if not items:
            return
        earliest = self._heap[0] if self._heap else None
        if len(items) > 16:
            self._heap += items
            heapq.heapify(self._heap)
        else:
            for item in items:
                heapq.heappush(self._heap, item)
        if self._heap[0] != earliest:
            self._arm()

    @property
    def earliest_s(self) -> float:
        """The time of the first item that was not delivered; infinity when there is none."""
        return self._heap[0][0] if self._heap else math.inf

    def clear(self) -> None:
        """Forget every item."""
        self._heap.clear()

    def close(self) -> None:
        """Forget every item and free the descriptor."""
        self.clear()
        if self._handle is not None:
            self._handle.cancel()
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None

    def _arm(self) -> None:
        if not self._heap or self._polling:
            return
        when = self._heap[0][0]
        if self._fd is not None:
            _set_timerfd(self._fd, when - _WAKE_EARLY_S)
            return
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop.call_later(max(0.0, when - time.monotonic()), self._poll)

    def _on_ready(self) -> None:
        if self._fd is not None:
            with contextlib.suppress(BlockingIOError):
                os.read(self._fd, 8)
        if not self._polling:
            self._poll()

    def _poll(self) -> None:
        """Deliver what is due; look again in the loop's next round while the next item is near."""
        heap = self._heap
        while heap and heap[0][0] <= time.monotonic():
            self._deliver(heapq.heappop(heap)[1])
        self._polling = self._fd is not None and bool(heap) and heap[0][0] - time.monotonic() <= _WAKE_EARLY_S
        if self._polling:
            self._loop.call_soon(self._poll)
        else:
            self._arm()


def _timerfd() -> int | None:
    if _LIBC is None:
        return None
    fd = int(_LIBC.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK_CLOEXEC))
    return fd if fd >= 0 else None


def _set_timerfd(fd: int, when: float) -> None:
    """Arm for an absolute monotonic time; a time that has passed fires at once."""
    assert _LIBC is not None
    nanoseconds = max(1, int(when * 1e9) + 1)  # 0 would disarm
    spec = _ITimerSpec(0, 0, nanoseconds // 1_000_000_000, nanoseconds % 1_000_000_000)
    _LIBC.timerfd_settime(fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None)
