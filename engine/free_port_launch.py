"""`on_a_port`: a launch on the port that was asked for, or on a free one with one more try when somebody takes it.

Does not know what is launched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from engine.backend import EngineError, FailureKind
from engine.process import free_port, port_in_use

Launched = TypeVar("Launched")


@contextlib.contextmanager
def on_a_port(
    start: Callable[[ExitStack, int], Launched], *, host: str, port: int | None, log_path: Path
) -> Iterator[Launched]:
    """What `start` gives; leaving the context closes the stack it was handed.

    Between our look for a free port and the server's bind somebody may take it; once is bad luck. What a failed try
    had started is closed before the next begins.

    Args:
        start: starts a server on a port and enters what must be closed into the stack.
        port: None: one that is free.

    Raises:
        EngineError: PORT when `port` is in use, and whatever `start` raises.
    """
    if port is not None and port_in_use(port, host):
        message = f"port {port} on {host} is in use. Choose another, or leave the choice to fopt"
        raise EngineError(message, kind=FailureKind.PORT, log_path=log_path)
    with ExitStack() as stack:
        yield _started(stack, start, host, port)


def _started(stack: ExitStack, start: Callable[[ExitStack, int], Launched], host: str, port: int | None) -> Launched:
    try:
        return _tried(stack, start, port or free_port(host))
    except EngineError as error:
        if port is not None or error.kind is not FailureKind.PORT:
            raise
    return _tried(stack, start, free_port(host))


def _tried(stack: ExitStack, start: Callable[[ExitStack, int], Launched], port: int) -> Launched:
    with ExitStack() as attempt:
        launched = start(attempt, port)
        stack.enter_context(attempt.pop_all())
    return launched


def url_of(host: str, port: int) -> str:
    """`http://host:port`; an IPv6 address in brackets."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
