"""`Launcher`: launches configs and tells meanwhile how far each is, by its log and by how long others took.

Does not know engines: what their logs mean is `engine/launch_phases.py`.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from engine.backend import Backend, Server
from engine.config import EngineConfig
from engine.launch_phases import OURS, launch_phase
from optimizer.client import Report, silent

POLL_S = 0.5
_TAIL_BYTES = 1 << 14
_WORTH_TELLING_S = 1.0  # a shorter launch was none: an idle server took the config


class Launcher:
    """Remembers how long launches took, for the next one's `of about 30 s`."""

    def __init__(self, backend: Backend, *, poll_s: float = POLL_S) -> None:
        self._backend, self._poll_s = backend, poll_s
        self._seconds: list[float] = []

    @contextmanager
    def launch(self, config: EngineConfig, *, log_path: Path, report: Report = silent) -> Iterator[Server]:
        """`Backend.launch`, whose phases `report` is told, from another thread, until the server is healthy.

        Raises:
            EngineError: as `Backend.launch`.
        """
        report("launching")
        with ExitStack() as stack:
            begin = time.monotonic()
            with _watching(_Watch(log_path, self.typical_s), report, self._poll_s):
                server = stack.enter_context(self._backend.launch(config, log_path=log_path))
            if time.monotonic() - begin > _WORTH_TELLING_S:
                self._seconds.append(server.launch_s)
            yield server

    @property
    def typical_s(self) -> float | None:
        """Median seconds of the launches so far; None before the first."""
        return statistics.median(self._seconds) if self._seconds else None


@contextmanager
def _watching(watch: _Watch, report: Report, poll_s: float) -> Iterator[None]:
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(poll_s):
            report(watch.line(time.monotonic()))

    thread = threading.Thread(target=tell, name="launch watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class _Watch:
    """One launch; what its log held before is not its own."""

    def __init__(self, log_path: Path, typical_s: float | None) -> None:
        self._log_path, self._typical_s = log_path, typical_s
        self._offset = _size(log_path)
        self._begin = self._server_begin = time.monotonic()

    def line(self, now: float) -> str:
        """E.g. `launching · loading weights 45%, 12 s of about 31 s`."""
        lines = self._new_lines()
        phase = launch_phase(lines)
        if lines and lines[-1].startswith(OURS):
            self._server_begin = now  # what is made before it starts is not in what others took
            return f"launching · {phase}, {now - self._begin:.0f} s"
        typical = f" of about {self._typical_s:.0f} s" if self._typical_s is not None else ""
        return f"launching · {phase or 'starting'}, {now - self._server_begin:.0f} s{typical}"

    def _new_lines(self) -> list[str]:
        try:
            with self._log_path.open("rb") as log:
                log.seek(max(self._offset, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
                return log.read().decode(errors="replace").splitlines()
        except OSError:
            return []


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
