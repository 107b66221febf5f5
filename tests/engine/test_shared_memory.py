"""Shared memory of killed processes: what a group held is found and removed, what others use stays."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.shared_memory import FOLDER, group_members, held_by_group, remove_abandoned

# Creates a block that nobody's resource tracker removes, or maps one that is there.
HOLDER = (
    "import mmap, sys, time\n"
    "file = open(sys.argv[1], 'a+b')\n"
    "file.truncate(4096)\n"
    "block = mmap.mmap(file.fileno(), 4096)\n"
    "print('held', flush=True)\n"
    "time.sleep(60)\n"
)


@contextmanager
def holding(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], process_group=0, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_semaphore_that_only_its_creator_has_is_found() -> None:
    """glibc makes it under another name, maps that, gives it its own name and deletes the other."""
    program = (
        "import _multiprocessing, os, signal, sys\n"
        "lock = _multiprocessing.SemLock(0, 1, 1, sys.argv[1], False)\n"
        "print('held', flush=True)\n"
        "signal.pause()\n"
    )
    name = f"fopt-test-{os.getpid()}"
    path = FOLDER / f"sem.{name}"
    with subprocess.Popen(
        [sys.executable, "-c", program, f"/{name}"], process_group=0, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        held = held_by_group(process.pid)
        process.kill()
    assert held == {path}
    assert remove_abandoned(held) == [path]


def test_what_a_group_held_is_removed_once_nobody_has_it(tmp_path: Path) -> None:
    path = FOLDER / f"fopt-test-{tmp_path.name}-{id(tmp_path)}"
    with holding(path) as first:
        assert group_members(first.pid) == [first.pid]
        held = held_by_group(first.pid)
        assert held == {path}
        assert remove_abandoned(held) == [], "it lives"
    with holding(path):
        assert remove_abandoned(held) == [], "somebody else uses it"
    assert remove_abandoned(held) == [path]
    assert not path.exists()
    assert remove_abandoned(held) == []
    assert held_by_group(first.pid) == frozenset()
