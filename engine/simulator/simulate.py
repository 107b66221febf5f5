"""`simulate`: requests in, what becomes of them out; one replica or several behind a router.

Does not know SLOs or prices.
"""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np

from engine.simulator.arrivals import Arrivals
from engine.simulator.disaggregated import serve_disaggregated
from engine.simulator.errors import SimulatorError
from engine.simulator.oracle import StepTimeOracle
from engine.simulator.outcome import Outcome
from engine.simulator.router import ROUTERS, Router
from engine.simulator.server import SimulatedServer, first_end_elsewhere_s
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
    if settings.split is not None:
        arrivals = Arrivals(traffic, settings.request_overhead_s)
        served = serve_disaggregated(
            traffic, settings, oracle, arrivals, settings.split, num_replicas=num_replicas, router=chosen
        )
        return _outcome(traffic, arrivals, served.servers, served.answered_by, served.prefilled_by)
    looks = chosen.looks and num_replicas > 1
    servers = [SimulatedServer(traffic, settings, oracle, interruptible=looks) for _ in range(num_replicas)]
    arrivals = Arrivals(traffic, settings.request_overhead_s)
    replicas = _serve(arrivals, servers, chosen)
    return _outcome(traffic, arrivals, servers, replicas, replicas)


def _serve(arrivals: Arrivals, servers: list[SimulatedServer], router: Router) -> list[int]:
    """The replica of every request."""
    replicas = [0] * len(arrivals.start_s)
    pause = arrivals.depend_on_ends
    alone = servers[0] if len(servers) == 1 else None
    while True:
        next_s = arrivals.next_s
        server = alone or min(servers, key=_next_event_s)
        if server.num_unfinished and server.now_s < next_s:
            until_s = next_s if alone or not pause else min(next_s, first_end_elsewhere_s(server, servers))
            ended = server.advance(until_s, pause_at_end=pause)
            if pause:
                for request in ended:
                    arrivals.ended(request, server.end_s[request])
        elif next_s < inf:
            taken = arrivals.take()
            if taken is not None:
                replicas[taken] = index = 0 if alone else router.choose(servers, taken)
                servers[index].submit(taken, next_s)
        else:
            return replicas


def _next_event_s(server: SimulatedServer) -> float:
    return server.now_s if server.num_unfinished else inf


def _outcome(
    traffic: Traffic,
    arrivals: Arrivals,
    servers: list[SimulatedServer],
    answered_by: list[int],
    prefilled_by: list[int],
) -> Outcome:
    """Each request's times are those of the server that answered it."""
    replica = np.array(answered_by)
    rows = np.arange(len(traffic))

    def column(per_server: list[list[float]] | list[list[int]], chosen: list[int] = answered_by) -> Any:
        return np.array(per_server)[chosen, rows]

    return Outcome(
        start_s=np.array(arrivals.start_s),
        first_token_s=column([server.first_token_s for server in servers]),
        end_s=column([server.end_s for server in servers]),
        output_tokens=traffic.output_tokens,
        num_preemptions=column([server.num_preemptions for server in servers]),
        num_cached_tokens=column([server.num_cached_tokens for server in servers], prefilled_by),
        replica=replica,
        busy_s=np.array([server.busy_s for server in servers]),
        logs=tuple(server.log for server in servers),
    )
