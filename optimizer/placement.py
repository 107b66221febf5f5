"""`Placement`: which CPU cores serve and which one measures, so that the client does not slow down what it times.

Does not start anything: the backend is handed `engine_cores`, the client pins itself with `client_pinned`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Placement:
    """None in both core fields: nothing is pinned, and `note` says why. `devices`: the engine's GPUs; None: all."""

    engine_cores: tuple[int, ...] | None
    client_cores: tuple[int, ...] | None
    note: str = ""
    devices: tuple[int, ...] | None = None

    @contextmanager
    def client_pinned(self) -> Iterator[None]:
        """This thread, and threads it starts, run on the client's cores inside; this one before all others there.

        A request that is due does not wait for whatever else the core had to do, where the system allows it (root, or
        CAP_SYS_NICE): without it, another process's time slice of some milliseconds voids a short replay.
        """
        if self.client_cores is None:
            yield
            return
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.client_cores)
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


def available_cores() -> tuple[int, ...]:
    """The cores this process may use; empty where the system cannot tell (not Linux)."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def plan_placement(cores: Collection[int] | None = None) -> Placement:
    """The last core for the client, all others for the engine; no pinning with fewer than two cores."""
    usable = tuple(sorted(available_cores() if cores is None else cores))
    if len(usable) < 2:
        what = "one core is available" if usable else "this system does not pin processes to cores"
        note = f"{what}: client and engine are not kept apart, and the client's own work is in the latencies"
        return Placement(engine_cores=None, client_cores=None, note=note)
    return Placement(engine_cores=usable[:-1], client_cores=usable[-1:])
