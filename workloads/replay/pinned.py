"""`pinned`: this thread on cores of its own and before all others there, so that what is due does not wait.

Does not choose the cores.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager


@contextmanager
def pinned(cores: Collection[int] | None) -> Iterator[None]:
    """This thread, and threads it starts, run on these cores inside; this one before all others there.

    A request that is due does not wait for whatever else the core had to do, where the system allows it (root, or
    CAP_SYS_NICE): without it, another process's time slice of some milliseconds voids a short replay.

    Args:
        cores: None: nothing is changed.
    """
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        with _before_all_others():
            yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _before_all_others() -> Iterator[None]:
    """Round-robin real-time scheduling of this thread, not of what it starts; nothing where it is not allowed."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)
