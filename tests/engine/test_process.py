"""Child processes: healthy or a reason why not, and nothing left afterwards."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from engine.backend import EngineError, FailureKind
from engine.process import ChildProcess, describe_exit, free_port, kept, port_in_use

ROOT = Path(__file__).resolve().parents[2]
SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]
# Ignores SIGTERM and has a child of its own, as vLLM does under load.
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "print(inner.pid, flush=True)\n"
    "time.sleep(60)\n",
]


def is_gone(pid: int) -> bool:
    """Dead, whether or not its new parent has collected it yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 60
    while not is_gone(pid):
        assert time.monotonic() < deadline, f"{pid} still runs"
        time.sleep(0.02)


def read_pid(log: Path) -> int:
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(log.read_text().split()[0])


def test_leaving_the_context_stops_the_child(tmp_path: Path) -> None:
    with ChildProcess(SLEEPER, log_path=tmp_path / "log") as child:
        assert child.exit_status() is None
        assert os.getpgid(child.pid) == child.pid
        assert os.getsid(child.pid) == os.getsid(0)
    assert is_gone(child.pid)


def test_a_child_that_ignores_sigterm_is_killed_with_its_own_children(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with ChildProcess(STUBBORN, log_path=log) as child:
        inner = read_pid(log)
        child.stop(grace_s=0.3)
    wait_gone(child.pid)
    wait_gone(inner)


def test_a_child_that_ends_first_is_died_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('no such model'); sys.exit(3)"]
    with (
        ChildProcess(command, log_path=tmp_path / "log") as child,
        pytest.raises(EngineError, match=r"exit status 3.*no such model") as caught,
    ):
        child.wait_healthy(lambda: False, timeout_s=60)
    assert caught.value.kind is FailureKind.DIED
    assert caught.value.log_path == tmp_path / "log"


def test_a_child_that_never_gets_healthy_is_a_timeout(tmp_path: Path) -> None:
    with (
        ChildProcess(SLEEPER, log_path=tmp_path / "log") as child,
        pytest.raises(EngineError, match=r"not healthy after 0.2 s") as caught,
    ):
        child.wait_healthy(lambda: False, timeout_s=0.2)
    assert caught.value.kind is FailureKind.TIMEOUT


def test_an_interrupt_while_stopping_kills_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ChildProcess(STUBBORN, log_path=tmp_path / "log") as child:
        inner = read_pid(tmp_path / "log")
        wait = child.process.wait

        def interrupted(timeout: float | None = None) -> int:
            if timeout is not None:
                raise KeyboardInterrupt
            return wait()

        monkeypatch.setattr(child.process, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            child.stop()
    wait_gone(child.pid)
    wait_gone(inner)


def test_a_kept_command_runs_on_its_cpus_and_gives_its_status(tmp_path: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    command = [sys.executable, "-c", "import os; print(os.sched_getaffinity(0)); raise SystemExit(7)"]
    with ChildProcess(kept(command, cpus=[cpu]), log_path=tmp_path / "log", cwd=ROOT) as child:
        assert child.process.wait(60) == 7
    assert (tmp_path / "log").read_text() == f"{{{cpu}}}\n"


def test_a_kept_command_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    starter = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from engine.process import ChildProcess, kept\n"
        f"with ChildProcess(kept({STUBBORN!r}), log_path=Path({str(log)!r})) as child:\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", starter], cwd=ROOT) as parent:
        inner = read_pid(log)
        stubborn = psutil.Process(inner).ppid()
        parent.send_signal(signal.SIGKILL)
    wait_gone(inner)
    wait_gone(stubborn)


def test_a_port_is_free_until_somebody_listens() -> None:
    port = free_port()
    assert not port_in_use(port)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        assert port_in_use(port)


def test_exit_statuses_read_as_words() -> None:
    assert describe_exit(2) == "exit status 2"
    assert describe_exit(-9) == "killed by SIGKILL"
    assert describe_exit(-250) == "killed by signal 250"
