"""`ClientProcess`: a client process of a replay as the replay sees it.

Does not know what it is told to send (`client_main.py` is the other side) or that there are others.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from workloads.errors import WorkloadError
from workloads.replay.share import Failure, Share
from workloads.replay.wire import Wire

_ROOT: Final = Path(__file__).resolve().parents[2]
_MAIN: Final = (
    f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from workloads.replay.client_main import main; "
    "main(int(sys.argv[1]))"
)
_GRACE_S: Final = 5.0


class ClientProcess:
    """One child of this process; `name` is for messages."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], wire: Wire) -> None:
        self.name, self.pid = name, process.pid
        self._process, self._wire = process, wire

    @classmethod
    async def start(cls, name: str, share: Share) -> Self:
        """Start it with what it is to do; it says `Ready` when it waits for the start."""
        ours, theirs = socket.socketpair()
        with theirs, _interrupts_held():
            command = [sys.executable, "-c", _MAIN, str(theirs.fileno())]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        client = cls(name, process, await Wire.over(ours))
        client.send(share)
        return client

    def send(self, message: object) -> None:
        """Does not wait."""
        self._wire.send(message)

    async def receive(self) -> object:
        """The next message.

        Raises:
            WorkloadError: it says that it cannot, or it has died.
            RuntimeError: a bug, with its traceback.
        """
        message = await self._wire.receive()
        if message is None:
            raise WorkloadError(f"{self.name} of the load generator died ({self._how()})", fix="Replay again")
        if isinstance(message, Failure):
            raise message.error
        return message

    def _how(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self._process.wait(_GRACE_S)
            if status < 0:
                return f"killed by {signal.Signals(-status).name}"
            return f"exit status {status}"
        return "it closed its wire"

    def end(self) -> None:
        """Whatever it does: on return it is gone."""
        self._process.kill()
        self._process.wait()
        self._wire.abort()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Children started inside never see Ctrl-C, which a terminal sends to every process: we end them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
