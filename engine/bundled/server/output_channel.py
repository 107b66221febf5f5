"""Where the outputs of one HTTP request's generations meet on their way from the engine thread.

Does not know what the outputs become.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from engine.bundled.outputs import RequestOutput


class Arrival(NamedTuple):
    """One output and the choice it belongs to."""

    choice_index: int
    output: RequestOutput


class OutputChannel:
    """Many writers in the event loop, one reader: everything that arrived since its last look, at once."""

    def __init__(self) -> None:
        self._arrived: list[Arrival] = []
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None

    def put(self, index: int, output: RequestOutput) -> None:
        self._arrived.append(Arrival(index, output))
        self._wake()

    def fail(self, error: Exception) -> None:
        """The reader gets what arrived before, then this error, then nothing more."""
        self._error = self._error or error
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def receive(self) -> list[Arrival]:
        """Wait for at least one arrival.

        Raises:
            Exception: what `fail` was told.
        """
        if not self._arrived and self._error is None:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        if self._arrived:
            arrived, self._arrived = self._arrived, []
            return arrived
        error, self._error = self._error, None
        assert error is not None
        try:
            raise error
        finally:
            del error  # its traceback holds this frame: without this, a ring that only the garbage collector frees
