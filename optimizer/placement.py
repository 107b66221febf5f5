"""`Placement`: which cores and GPUs serve and which core measures, so that the client does not slow down what it times.

Does not start anything: the backend is handed `engine_cores` and `devices`, the client pins itself with
`client_pinned`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from engine.devices import visible_devices


@dataclass(frozen=True, kw_only=True)
class Placement:
    """None in both core fields: nothing is pinned, and `note` says why. `devices`: GPUs that engines may use.

    A device is a number or an id as in CUDA_VISIBLE_DEVICES; None: nobody can tell which there are.
    """

    engine_cores: tuple[int, ...] | None
    client_cores: tuple[int, ...] | None
    note: str = ""
    devices: tuple[str, ...] | None = None

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


def plan_placement(cores: Collection[int] | None = None, *, devices: tuple[str, ...] | None = None) -> Placement:
    """The last core for the client, all others for the engine; no pinning with fewer than two cores.

    Args:
        devices: GPUs that the user allows; None: those that are visible here.
    """
    usable = tuple(sorted(available_cores() if cores is None else cores))
    allowed = visible_devices() if devices is None else devices
    if len(usable) < 2:
        what = "one core is available" if usable else "this system does not pin processes to cores"
        note = f"{what}: client and engine are not kept apart, and the client's own work is in the latencies"
        return Placement(engine_cores=None, client_cores=None, note=note, devices=allowed)
    return Placement(engine_cores=usable[:-1], client_cores=usable[-1:], devices=allowed)
