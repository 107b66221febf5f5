"""Routers: which replica takes the next request.

Do not know times to come: only what every server holds at the moment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from engine.simulator.server import SimulatedServer


class Router(Protocol):
    """Chooses a server for a request at its arrival."""

    looks: bool  # at the servers' state, which must then be that of the arrival

    def choose(self, servers: Sequence[SimulatedServer], request: int) -> int: ...


class RoundRobin:
    """One after the other."""

    looks = False

    def __init__(self) -> None:
        self._next = 0

    def choose(self, servers: Sequence[SimulatedServer], request: int) -> int:  # noqa: ARG002
        chosen = self._next % len(servers)
        self._next += 1
        return chosen


class LeastLoaded:
    """The fewest unfinished requests; the first among equals."""

    looks = True

    def choose(self, servers: Sequence[SimulatedServer], request: int) -> int:  # noqa: ARG002
        return min(range(len(servers)), key=lambda index: servers[index].num_unfinished)


class PrefixAware:
    """The longest cached prefix, unless that server has `max_lead` unfinished requests more than the idlest."""

    looks = True

    def __init__(self, max_lead: int = 8) -> None:
        self._max_lead = max_lead

    def choose(self, servers: Sequence[SimulatedServer], request: int) -> int:
        least = min(server.num_unfinished for server in servers)

        def worth(index: int) -> tuple[int, int]:
            return servers[index].cached_blocks(request), -servers[index].num_unfinished

        near = [i for i, server in enumerate(servers) if server.num_unfinished <= least + self._max_lead]
        return max(near, key=worth)


ROUTERS: Mapping[str, Callable[[], Router]] = {
    "round_robin": RoundRobin,
    "least_loaded": LeastLoaded,
    "prefix_aware": PrefixAware,
}
