"""Client processes that die, fail, or lose the process that started them: an error with a sentence, no orphan."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mock_server import MockServer
from replay_cases import replay
from workload_cases import chat, workload

from workloads.errors import WorkloadError
from workloads.records import RequestRecord
from workloads.replay.parallel_run import ParallelRun

ROOT = Path(__file__).parents[3]


def children_of(pid: int) -> set[int]:
    """Living children, from the system."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child) for child in found}


def test_a_client_that_is_killed_is_an_error_and_leaves_no_other(
    server: MockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.behaviour.fault = lambda _: "hang"
    started: list[int] = []

    def kill(run: ParallelRun, *_: object) -> None:
        if not started:
            started.extend(client.pid for client in run._clients)
            os.kill(started[1], signal.SIGKILL)

    monkeypatch.setattr(ParallelRun, "_take", kill)
    before = time.monotonic()
    with pytest.raises(WorkloadError, match=r"client process 2 of 2 of the load generator died \(killed by SIGKILL\)"):
        replay(server, workload(chat("a", 0.0), chat("b", 0.0)), clients=2)
    assert time.monotonic() - before < 9  # neither request's timeout was waited for
    assert not children_of(os.getpid()) & set(started)


def test_what_a_client_cannot_send_is_told_in_its_own_words(server: MockServer) -> None:
    lengthless = chat("b", 0.0, output_tokens=None)
    with pytest.raises(WorkloadError, match="has no output_tokens to pin its length to"):
        replay(server, workload(chat("a", 0.0), lengthless), mode="concurrency", concurrency=2, clients=2)


def test_exceptions_of_callbacks_and_rules_reach_the_caller(server: MockServer) -> None:
    class Broken:
        def look(self, *_: object) -> str | None:
            raise RuntimeError("rule")

    def fail(_: RequestRecord) -> None:
        raise RuntimeError("callback")

    what = workload(chat("a", 0.0), chat("b", 0.0), chat("c", 60.0), chat("d", 60.0))
    with pytest.raises(RuntimeError, match="rule"):
        replay(server, what, stop_rule=Broken(), clients=2)
    with pytest.raises(RuntimeError, match="callback"):
        replay(server, what, on_record=fail, clients=2)
    assert not children_of(os.getpid())


_PARENT = """
import sys
from workloads.metadata import Source, WorkloadMetadata
from workloads.replay.replayer import Replayer
from workloads.request import Request
from workloads.workload import Workload

metadata = WorkloadMetadata(name="t", source=Source(format="t"))
requests = [Request(request_id=str(i), arrival_s=9.0 * (i > 1), prompt="p", output_tokens=1) for i in range(4)]
Replayer(
    base_url=sys.argv[1], model="mock", clients=2, on_record=lambda _: print("going", flush=True)
).replay(Workload.from_requests(requests, metadata))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_clients_end_with_the_process_that_started_them(server: MockServer, number: signal.Signals) -> None:
    command = [sys.executable, "-c", _PARENT, server.base_url]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"going\n"
        clients = children_of(parent.pid)
        parent.send_signal(number)
    assert len(clients) == 2
    wait_for(lambda: not any(_is_alive(client) for client in clients))


def _is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
