"""`python -m engine.keeper`: runs a command that does not watch its parent, and kills it when our process dies.

Does not know what it runs. Shared memory that the killed command held, and its folder for scratch, are removed too.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from engine.bundled.server.parent_death import signal_on_parent_death
from engine.shared_memory import group_members, held_by_group, remove_abandoned

_POLL_S = 0.02
_CLEANING_S = 5.0


def main() -> int:
    """Run the command in this process group; returns its exit status."""
    parser = argparse.ArgumentParser(prog="engine.keeper", description=__doc__)
    parser.add_argument("--parent-pid", type=int, required=True)
    parser.add_argument("--cpus", type=parse_cpus, default=None)
    parser.add_argument("--scratch", type=Path, default=None, help="removed when our process dies")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    held: set[Path] = set()  # shared memory seen when the command was asked to stop: members may be gone later
    signal.signal(signal.SIGUSR1, functools.partial(_kill_group, options.scratch, held))
    signal_on_parent_death(signal.SIGUSR1, parent_pid=options.parent_pid)
    if options.cpus:
        os.sched_setaffinity(0, options.cpus)
    child = subprocess.Popen(options.command)

    def stop(_number: int, _frame: FrameType | None) -> None:
        held.update(held_by_group(os.getpgid(0)))
        child.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    status = child.wait()
    return status if status >= 0 else 128 - status


def parse_cpus(text: str) -> set[int]:
    """`0,2` as {0, 2}."""
    return {int(part) for part in text.split(",")}


def _kill_group(scratch: Path | None, seen: set[Path], _number: int, _frame: FrameType | None) -> None:
    """All but ourselves first, so that somebody is left to clean up."""
    group = os.getpgid(0)
    held = held_by_group(group) | seen
    deadline = time.monotonic() + _CLEANING_S
    while (others := [pid for pid in group_members(group) if pid != os.getpid()]) and time.monotonic() < deadline:
        for pid in others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)
    remove_abandoned(held)
    if scratch is not None:
        shutil.rmtree(scratch, ignore_errors=True)
    os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
