"""`simulate`: requests in, what becomes of them out; one replica or several behind a router.

Does not know SLOs or prices.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import Any

import numpy as np

from engine.simulator.errors import SimulatorError
from engine.simulator.oracle import StepTimeOracle
from engine.simulator.outcome import Outcome
from engine.simulator.router import ROUTERS, Router
from engine.simulator.server import SimulatedServer
from engine.simulator.settings import SchedulerSettings
from engine.simulator.traffic import Traffic


def simulate(
    traffic: Traffic,
    settings: SchedulerSettings,
    oracle: StepTimeOracle,
    *,
    num_replicas: int = 1,
    router: str = "round_robin",
) -> Outcome:
    """Serve the traffic to its end.

    Raises:
        SimulatorError: no requests, a request that never fits, an unknown router.
    """
    if not len(traffic):
        raise SimulatorError("there are no requests to simulate. Give at least one")
    if router not in ROUTERS:
        raise SimulatorError(f"no router is called {router!r}. Choose one of {', '.join(ROUTERS)}")
    chosen = ROUTERS[router]()
    looks = chosen.looks and num_replicas > 1
    servers = [SimulatedServer(traffic, settings, oracle, interruptible=looks) for _ in range(num_replicas)]
    arrivals = Arrivals(traffic, settings.request_overhead_s)
    replicas = _serve(arrivals, servers, chosen)
    return _outcome(traffic, arrivals, servers, replicas)


class Arrivals:
    """Requests in the order in which they come, those included that wait for others' ends."""

    def __init__(self, traffic: Traffic, overhead_s: float) -> None:
        self.start_s = [inf] * len(traffic)
        self._overhead_s = overhead_s
        self._queue: list[tuple[float, int]] = []
        self._followers: dict[int, list[int]] = {}
        self._think_s = [0.0] * len(traffic) if traffic.think_s is None else traffic.think_s.tolist()
        arrival_s = traffic.arrival_s.tolist()
        roots = list(range(len(traffic)))
        if traffic.parent is not None:
            roots = np.flatnonzero(traffic.parent < 0).tolist()
            for request in np.flatnonzero(traffic.parent >= 0).tolist():
                self._followers.setdefault(int(traffic.parent[request]), []).append(request)
        roots.sort(key=arrival_s.__getitem__)
        limit = traffic.max_concurrency or len(roots)
        self._held_back = roots[limit:][::-1]
        self._closed_loop = limit < len(roots)
        for request in roots[:limit]:
            self._add(request, arrival_s[request])

    @property
    def depend_on_ends(self) -> bool:
        """Whether a request's end can bring another."""
        return bool(self._followers) or self._closed_loop

    @property
    def next_s(self) -> float:
        """When the next one reaches a scheduler; infinity when none is known."""
        return self._queue[0][0] if self._queue else inf

    def take(self) -> int:
        return heappop(self._queue)[1]

    def ended(self, request: int, end_s: float) -> None:
        """Let those come who waited for it."""
        followers = self._followers.get(request, ())
        for follower in followers:
            self._add(follower, end_s + self._think_s[follower])
        if self._held_back and not followers:
            self._add(self._held_back.pop(), end_s)

    def _add(self, request: int, start_s: float) -> None:
        self.start_s[request] = start_s
        heappush(self._queue, (start_s + self._overhead_s, request))


def _serve(arrivals: Arrivals, servers: list[SimulatedServer], router: Router) -> list[int]:
    """The replica of every request."""
    replicas = [0] * len(arrivals.start_s)
    pause = arrivals.depend_on_ends
    alone = servers[0] if len(servers) == 1 else None
    while True:
        next_s = arrivals.next_s
        server = alone or min(servers, key=_next_event_s)
        if server.num_unfinished and server.now_s < next_s:
            ended = server.advance(next_s, pause_at_end=pause)
            if pause:
                for request in ended:
                    arrivals.ended(request, server.end_s[request])
        elif next_s < inf:
            request = arrivals.take()
            replicas[request] = index = 0 if alone else router.choose(servers, request)
            servers[index].submit(request, next_s)
        else:
            return replicas


def _next_event_s(server: SimulatedServer) -> float:
    return server.now_s if server.num_unfinished else inf


def _outcome(traffic: Traffic, arrivals: Arrivals, servers: list[SimulatedServer], replicas: list[int]) -> Outcome:
    replica = np.array(replicas)
    rows = np.arange(len(traffic))

    def column(per_server: list[list[float]] | list[list[int]]) -> Any:
        return np.array(per_server)[replica, rows]

    return Outcome(
        start_s=np.array(arrivals.start_s),
        first_token_s=column([server.first_token_s for server in servers]),
        end_s=column([server.end_s for server in servers]),
        output_tokens=traffic.output_tokens,
        num_preemptions=column([server.num_preemptions for server in servers]),
        num_cached_tokens=column([server.num_cached_tokens for server in servers]),
        replica=replica,
        busy_s=np.array([server.busy_s for server in servers]),
        logs=tuple(server.log for server in servers),
    )
