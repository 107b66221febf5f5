"""`Placement`: which cores and GPUs serve and which core measures, so that the client does not slow down what it times.

Does not start anything: the backend is handed `engine_cores` and `devices`, the client pins itself with
`client_pinned`.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass

from engine.devices import visible_devices
from workloads.replay.num_clients import num_clients
from workloads.replay.pinned import pinned
from workloads.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Placement:
    """None in both core fields: nothing is pinned, and `note` says why. `devices`: GPUs that engines may use.

    A device is a number or an id as in CUDA_VISIBLE_DEVICES; None: nobody can tell which there are.
    """

    engine_cores: tuple[int, ...] | None
    client_cores: tuple[int, ...] | None
    note: str = ""
    devices: tuple[str, ...] | None = None

    def client_pinned(self) -> AbstractContextManager[None]:
        """This thread runs on the client's last core inside, before all others there (see `pinned`)."""
        return pinned(None if self.client_cores is None else self.client_cores[-1:])


def available_cores() -> tuple[int, ...]:
    """The cores this process may use; empty where the system cannot tell (not Linux)."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def plan_placement(
    cores: Collection[int] | None = None, *, devices: tuple[str, ...] | None = None, num_clients: int = 1
) -> Placement:
    """The last cores for the clients, all others for the engine; no pinning with fewer than two cores.

    Args:
        devices: GPUs that the user allows; None: those that are visible here.
        num_clients: processes that send the traffic, one a core; the engine keeps at least one core.
    """
    usable = tuple(sorted(available_cores() if cores is None else cores))
    allowed = visible_devices() if devices is None else devices
    if len(usable) < 2:
        what = "one core is available" if usable else "this system does not pin processes to cores"
        note = f"{what}: client and engine are not kept apart, and the client's own work is in the latencies"
        return Placement(engine_cores=None, client_cores=None, note=note, devices=allowed)
    first = max(1, len(usable) - num_clients)
    return Placement(engine_cores=usable[:first], client_cores=usable[first:], devices=allowed)


def placement_for(workload: Workload, *, devices: tuple[str, ...] | None = None) -> Placement:
    """As many client cores as the recorded rate needs (`num_clients`): one on machines of fewer than eight cores."""
    return plan_placement(devices=devices, num_clients=num_clients(workload, num_cores=len(available_cores())))
