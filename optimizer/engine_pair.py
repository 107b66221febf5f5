"""Two configs served in turns: both engines stay up where memory allows, else each is launched anew for its turn.

Does not send traffic; only the engine whose turn it is should get any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

from engine.backend import Backend, EngineError, FailureKind, Server
from engine.config import EngineConfig
from optimizer.client import Report, silent
from optimizer.launching import Launcher

Turn = Callable[[str], AbstractContextManager[Server]]


@contextmanager
def serving_in_turns(
    backend: Backend, configs: Mapping[str, EngineConfig], *, directory: Path, report: Report = silent
) -> Iterator[Turn]:
    """Gives a function from a config's name to the server for one turn.

    Raises:
        EngineError: a config cannot run, also alone.
    """

    launcher = Launcher(backend)

    def launch(name: str) -> AbstractContextManager[Server]:
        return launcher.launch(
            configs[name], log_path=directory / f"{name}.log", report=lambda text: report(f"{name}: {text}")
        )

    with ExitStack() as stack:
        servers = _all_up(backend, configs, launch, stack)
        if servers is None:
            yield launch
        else:
            yield lambda name: nullcontext(servers[name])


def _all_up(
    backend: Backend,
    configs: Mapping[str, EngineConfig],
    launch: Callable[[str], AbstractContextManager[Server]],
    stack: ExitStack,
) -> dict[str, Server] | None:
    """None when they do not fit beside each other; nothing is left running then."""
    servers: dict[str, Server] = {}
    try:
        for name, config in configs.items():
            if servers and backend.check(config):  # what fitted alone does not fit beside the first
                stack.close()
                return None
            servers[name] = stack.enter_context(launch(name))
    except EngineError as error:
        stack.close()
        if error.kind is not FailureKind.OUT_OF_MEMORY or not servers:
            raise
        return None
    return servers
