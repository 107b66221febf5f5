"""`WarmBackend`: a backend whose idle server takes the next config without a restart, where it can.

Does not know which engines can.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from engine.backend import Backend, EngineError, FailureKind, Refusal, Server
from engine.config import EngineConfig


class WarmBackend:
    """Keeps the last server between launches; a context manager that stops it at the end.

    A server is kept only when its turn ended well. When it cannot take a config, for whatever reason, it is stopped and
    the config launched anew, so that what a launch says about a config is always said by a launch.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._idle: tuple[Server, contextlib.ExitStack] | None = None
        self.num_warm = self.num_cold = 0

    def __enter__(self) -> WarmBackend:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_idle()

    @property
    def name(self) -> str:
        return self._backend.name

    def check(self, config: EngineConfig) -> list[Refusal]:
        refusals = self._backend.check(config)
        if self._idle is None or all(refusal.kind is not FailureKind.OUT_OF_MEMORY for refusal in refusals):
            return refusals
        self._stop_idle()  # its memory is what may be missing
        return self._backend.check(config)

    @contextlib.contextmanager
    def launch(self, config: EngineConfig, *, log_path: Path, port: int | None = None) -> Iterator[Server]:
        warm = self._take_warm(config) if port is None else None
        server, stack = warm or self._launch(config, log_path, port)
        self.num_warm, self.num_cold = self.num_warm + (warm is not None), self.num_cold + (warm is None)
        begin = _size(server.log_path)
        try:
            yield server
        except BaseException:
            stack.close()
            raise
        finally:
            if server.log_path != log_path:
                _copy_tail(server.log_path, begin, log_path)
        self._stop_idle()
        self._idle = (server, stack)

    def _take_warm(self, config: EngineConfig) -> tuple[Server, contextlib.ExitStack] | None:
        """The idle server with the new config; None, and nothing runs any more, when it could not take it."""
        if self._idle is None:
            return None
        kept, self._idle = self._idle, None
        try:
            if kept[0].reconfigure(config):
                return kept
        except EngineError:
            pass  # it died or hung: the launch that follows starts from nothing
        except BaseException:
            kept[1].close()
            raise
        kept[1].close()
        return None

    def _launch(self, config: EngineConfig, log_path: Path, port: int | None) -> tuple[Server, contextlib.ExitStack]:
        self._stop_idle()
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(self._backend.launch(config, log_path=log_path, port=port))
            return server, stack.pop_all()

    def _stop_idle(self) -> None:
        if self._idle is not None:
            kept, self._idle = self._idle, None
            kept[1].close()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _copy_tail(source: Path, begin: int, target: Path) -> None:
    """What the engine said during one turn, under the turn's own name."""
    said = b""
    if source.exists():
        with source.open("rb") as file:
            file.seek(begin)
            said = file.read()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(f"reconfigured; the engine's start is in {source}\n".encode() + said)
