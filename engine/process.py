"""Child processes that serve: start, wait until healthy, stop without leaving anything behind.

Does not know what the child is or which API it speaks.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from engine.backend import EngineError, FailureKind
from engine.shared_memory import held_by_group, remove_abandoned

_POLL_S = 0.02
_GRACE_S = 5.0
_LOOK_S = 0.5  # between looks at the shared memory of a child that is starting
_ROOT = Path(__file__).resolve().parent.parent
_KEEP = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from engine.keeper import main; sys.exit(main())"


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port nobody listens on at this moment; somebody else may take it before the caller does."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def port_in_use(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a listener would be refused this port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return True
    return False


def kept(command: Sequence[str], *, cpus: Collection[int] | None = None, scratch: Path | None = None) -> list[str]:
    """The command under `engine.keeper`, for children that would survive us or cannot pin themselves to CPUs.

    Args:
        scratch: a folder to remove when our process dies before it could.
    """
    options = ["--cpus", ",".join(map(str, sorted(cpus)))] if cpus else []
    options += ["--scratch", str(scratch)] if scratch else []
    return [sys.executable, "-c", _KEEP, "--parent-pid", str(os.getpid()), *options, "--", *command]


@functools.cache
def _spawner() -> ThreadPoolExecutor:
    """The thread that starts children: the parent-death signal follows the spawning thread, not its process."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


class ChildProcess:
    """One child, the leader of its own process group; a context manager that leaves no member of it alive, and none of
    the shared memory that a killed member held.

    The group is not a new session: vLLM's busy-polling workers in another session starve the client.
    """

    def __init__(
        self, command: Sequence[str], *, log_path: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self._command = list(command)
        self._env = {**os.environ, **(env or {})}
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None
        self._shared_memory: frozenset[Path] = frozenset()
        self.log_path = log_path

    def __enter__(self) -> ChildProcess:
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        spawned = _spawner().submit(self._spawn)
        try:
            self._process = spawned.result()
        except KeyboardInterrupt:
            self._process = spawned.result()
            self.stop()
            raise
        return self

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                process_group=0,
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "enter the context first"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    def exit_status(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self.process.poll()

    def wait_healthy(self, is_healthy: Callable[[], bool], *, timeout_s: float) -> float:
        """Seconds until `is_healthy` first said yes.

        Raises:
            EngineError: DIED when the process ended first, TIMEOUT when the deadline passed.
        """
        begin = last_look = time.monotonic()
        while not is_healthy():
            if (status := self.exit_status()) is not None:
                raise self.death(status, "before it was healthy")
            if time.monotonic() - begin > timeout_s:
                message = f"the engine was not healthy after {timeout_s:g} s. See {self.log_path}, or allow more time"
                raise EngineError(message, kind=FailureKind.TIMEOUT, log_path=self.log_path)
            if time.monotonic() - last_look > _LOOK_S:
                self._look_at_shared_memory()
                last_look = time.monotonic()
            time.sleep(_POLL_S)
        launch_s = time.monotonic() - begin
        self._look_at_shared_memory()
        return launch_s

    def _look_at_shared_memory(self) -> None:
        """Remember what the group holds now: once a member is killed nobody can tell."""
        self._shared_memory |= held_by_group(self.pid)

    def death(self, status: int, when: str) -> EngineError:
        """The error for a process that ended by itself, with the log's last line."""
        last = next((line for line in reversed(self.log_tail()) if line.strip()), "its log is empty")
        message = f"the engine ended {when} ({describe_exit(status)}): {last.strip()}. See {self.log_path}"
        return EngineError(message, kind=FailureKind.DIED, log_path=self.log_path)

    def log_tail(self, num_bytes: int = 8192) -> list[str]:
        """The log's last lines."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - num_bytes))
                return log.read().decode(errors="replace").splitlines()
        except OSError:
            return []

    def stop(self, grace_s: float = _GRACE_S) -> None:
        """SIGTERM, wait, then SIGKILL to the whole group; an interrupt while waiting kills at once."""
        if self._process is None:
            return
        self._look_at_shared_memory()
        try:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
                self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._kill_group()

    def _kill_group(self) -> None:
        # The group outlives its leader as long as it has a member, and its id is not reused before that.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        self._clean_shared_memory()

    def _clean_shared_memory(self) -> None:
        """Members are gone some milliseconds after SIGKILL; until then they have their files mapped."""
        deadline = time.monotonic() + _GRACE_S
        left = self._shared_memory
        while left and time.monotonic() < deadline:
            remove_abandoned(left)
            left = frozenset(path for path in left if path.exists())
            if left:
                time.sleep(_POLL_S)
        self._shared_memory = frozenset()


def describe_exit(status: int) -> str:
    """An exit status in words, e.g. `exit status 1` or `killed by SIGKILL`."""
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-status).name}"
    return f"killed by signal {-status}"
