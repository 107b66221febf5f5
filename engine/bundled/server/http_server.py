"""The HTTP server around the application: one socket, its signals, its end.

Does not know what the application does.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

_KEEP_ALIVE_S = 75


class HttpServer(uvicorn.Server):
    """uvicorn, but for its signal handling, which would end the process by the signal it caught."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        """Accept nothing more, wait for answers under way, return from `serve`."""
        self.should_exit = True


def make_http_server(app: ASGIApp, *, grace_s: int = 2) -> HttpServer:
    """Quiet but for warnings: an access log would cost more than an answer.

    Args:
        grace_s: answers still under way this long after `stop` are cut off.
    """
    return HttpServer(
        uvicorn.Config(
            app,
            loop="uvloop",
            lifespan="off",
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=grace_s,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; connections wait in it until the engine is loaded.

    Raises:
        OSError: the address is in use or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener
