"""`Ranks`: the processes of ranks 1 and above, as rank 0 sees them.

Does not know tensors: it sends spans of tokens and learns when a rank has gone.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence as Seq
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from engine.bundled.batch import Moves, Span
from engine.bundled.errors import BundledEngineError
from engine.config import EngineConfig, dump_engine_config

_STOP_S = 2.0
_PACKAGE_ROOT = Path(__file__).resolve().parents[3]
_SOCKETS = "GLOO_SOCKET_IFNAME"  # ranks of one machine talk over the loopback


class RankDiedError(RuntimeError):
    """A rank has gone; the engine cannot go on."""


class Start(NamedTuple):
    """What a rank needs to know of rank 0 once both have loaded."""

    num_blocks: int


class Ranks:
    """Started at once, so that they load while rank 0 does; they end with the process that started them."""

    def __init__(self, config: EngineConfig, *, max_model_len: int) -> None:
        os.environ.setdefault(_SOCKETS, "lo")
        path = os.pathsep.join(filter(None, (str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": path}
        self._folder = tempfile.TemporaryDirectory(prefix="fopt-ranks-")
        self.rendezvous = f"file://{self._folder.name}/rendezvous"
        config_path = Path(self._folder.name) / "config.yaml"
        config_path.write_text(dump_engine_config(config))
        self._connections: list[Connection] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        for rank in range(1, config.tensor_parallel_size):
            ours, theirs = Pipe()
            command = [
                *(sys.executable, "-P", "-m", "engine.bundled.parallel.worker"),
                *("--rank", str(rank), "--config", str(config_path), "--rendezvous", self.rendezvous),
                *("--max-model-len", str(max_model_len), "--connection", str(theirs.fileno())),
                *("--parent-pid", str(os.getpid())),
            ]
            self._processes.append(subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment))
            theirs.close()
            self._connections.append(ours)

    def start(self, start: Start) -> None:
        """Wait until every rank has loaded and tell it the rest.

        Raises:
            BundledEngineError: what kept a rank from loading.
            RankDiedError: a rank ended without a word.
        """
        for connection in self._connections:
            try:
                trouble = connection.recv()
            except EOFError:
                raise self.loss() from None
            if isinstance(trouble, BundledEngineError):
                raise trouble
        self.send(start)

    def send(self, message: Start | Moves | Seq[Span]) -> None:
        """To every rank.

        Raises:
            RankDiedError: a rank has gone.
        """
        for connection in self._connections:
            try:
                connection.send(message)
            except OSError:
                raise self.loss() from None

    def check_alive(self) -> None:
        """Raises RankDiedError when a rank has gone."""
        if any(process.poll() is not None for process in self._processes):
            raise self.loss()

    def loss(self) -> RankDiedError:
        """Which ranks have gone, waiting a moment for the one whose connection broke."""
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S / len(self._processes))
        gone = [f"rank {rank} ({_ending(process.returncode)})" for rank, process in enumerate(self._processes, 1)
                if process.poll() is not None]  # fmt: skip
        return RankDiedError(
            f"{' and '.join(gone) or 'a rank that does not answer'} of {len(self._processes) + 1} has gone"
        )

    def close(self) -> None:
        """End the processes; fine to call twice."""
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._folder.cleanup()


def threads_of_rank(num_threads: int | None, num_ranks: int) -> int:
    """CPU threads: as the config says, else a fair share of the cores."""
    return num_threads or max(1, len(os.sched_getaffinity(0)) // num_ranks)


def _ending(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"
