"""`LoopLag`: how late the client's own event loop is, by a heartbeat.

Does not know requests. With a fixed number in flight a request is intended when the client notices that a slot is free,
so an overloaded client is late without any schedule lag to show for it; its heartbeat shows it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, Self

from workloads.replay.timer import PreciseTimer

BEAT_S: Final = 0.02


class LoopLag:
    """A context in which `lags_s` grows by one value a beat; beats that were missed count with their full lag."""

    def __init__(self) -> None:
        self.lags_s: list[float] = []

    def __enter__(self) -> Self:
        self._timer = PreciseTimer(asyncio.get_running_loop(), self._beat)
        self._due = time.monotonic()
        self._next()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.close()

    def _beat(self, _: int) -> None:
        self.lags_s.append(time.monotonic() - self._due)
        self._next()

    def _next(self) -> None:
        self._due += BEAT_S
        self._timer.add_all([(self._due, 0)])
