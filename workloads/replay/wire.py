"""`Wire`: whole Python objects between a replay and the client processes that it started, over a socket pair.

Does not know what they mean. The objects are pickles, which only ever come from a process of our own: the socket has no
name that others could connect to. Sending never waits, so that a slow reader does not make a client late.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
from typing import Final, Self

_LENGTH: Final = struct.Struct("!Q")


class Wire:
    """One end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Self:
        """Takes the socket over."""
        return cls(*await asyncio.open_unix_connection(sock=end))

    def send(self, message: object) -> None:
        """Hand it to the loop, which writes as the other end reads."""
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        self._writer.write(_LENGTH.pack(len(data)))
        self._writer.write(data)

    async def receive(self) -> object | None:
        """The next message, or None when the other end is gone."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            message: object = pickle.loads(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return message

    async def drain(self) -> None:
        """Wait until everything is written and close."""
        self._writer.close()
        await self._writer.wait_closed()

    def abort(self) -> None:
        """Close without waiting."""
        self._writer.transport.abort()
