"""Prefill and decode on instances of their own: arrivals to the first, KV over a link, answers from the second.

Does not know routers beyond their protocol, nor prices. Arrivals go to a prefill instance by the given router; when its
KV has arrived, a request goes to the decode instance with the fewest unfinished ones. The whole prompt's blocks are
moved once it is computed, also those that the decode instance has cached; nothing is sent while it is computed.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf, nextafter
from typing import NamedTuple

from engine.simulator.arrivals import Arrivals
from engine.simulator.decode_instance import DecodeInstance
from engine.simulator.instance_split import InstanceSplit
from engine.simulator.oracle import StepTimeOracle
from engine.simulator.prefill_instance import PrefillInstance
from engine.simulator.router import LeastLoaded, Router
from engine.simulator.server import SimulatedServer, first_end_elsewhere_s
from engine.simulator.settings import SchedulerSettings
from engine.simulator.traffic import Traffic


class Served(NamedTuple):
    """The instances when all is done, prefill before decode, and by request the number of the one that answered."""

    servers: list[SimulatedServer]
    answered_by: list[int]
    prefilled_by: list[int]


def serve_disaggregated(
    traffic: Traffic,
    settings: SchedulerSettings,
    oracle: StepTimeOracle,
    arrivals: Arrivals,
    split: InstanceSplit,
    *,
    num_replicas: int,
    router: Router,
) -> Served:
    """Serve the traffic to its end on `num_replicas` times the split's instances, of which any may serve any other.

    Raises:
        SimulatorError: a request that never fits.
    """
    prefill = [PrefillInstance(traffic, settings, oracle, split) for _ in range(num_replicas * split.prefill_instances)]
    decode = [DecodeInstance(traffic, settings, oracle) for _ in range(num_replicas * split.decode_instances)]
    return _Run(arrivals, prefill, decode, router).to_the_end()


class _Run:
    """Two sides that pass requests on; neither runs past a time at which the other could still bring it one."""

    def __init__(
        self, arrivals: Arrivals, prefill: list[PrefillInstance], decode: list[DecodeInstance], router: Router
    ) -> None:
        self._arrivals, self._prefill, self._decode, self._router = arrivals, prefill, decode, router
        self._closed_loop = arrivals.depend_on_ends
        self._balance = LeastLoaded()
        self._sent: list[tuple[float, int]] = []  # arrives at, request
        number = len(arrivals.start_s)
        self._prefilled_by, self._answered_by = [0] * number, [0] * number

    def to_the_end(self) -> Served:
        while True:
            prefiller = min(self._prefill, key=lambda server: server.next_s)
            decoder = min(self._decode, key=_next_s)
            upstream_s = min(self._arrivals.next_s, prefiller.next_s)
            downstream_s = min(self._sent[0][0] if self._sent else inf, _next_s(decoder))
            if upstream_s < inf and (upstream_s <= downstream_s or not self._closed_loop):
                self._go_on_prefilling(prefiller, downstream_s if self._closed_loop else inf)
            elif downstream_s < inf:
                self._go_on_decoding(decoder, upstream_s)
            else:
                return Served([*self._prefill, *self._decode], self._answered_by, self._prefilled_by)

    def _go_on_prefilling(self, server: PrefillInstance, downstream_s: float) -> None:
        """Up to the next arrival that is known, or could come of an answer's end after `downstream_s`."""
        arrival_s, begin_s = self._arrivals.next_s, server.next_s
        if arrival_s <= begin_s:
            taken = self._arrivals.take()
            if taken is not None:
                self._prefilled_by[taken] = index = self._router.choose(self._prefill, taken)
                self._prefill[index].submit(taken, arrival_s)
            return
        index = self._prefill.index(server)
        until_s = max(min(arrival_s, downstream_s), nextafter(begin_s, inf))  # a step at least
        for request in server.advance(until_s, pause_at_end=self._closed_loop):
            if server.sent_s[request] < inf:
                heappush(self._sent, (server.sent_s[request], request))
            else:
                self._answered_by[request] = index
                self._end(request, server)

    def _go_on_decoding(self, server: DecodeInstance, upstream_s: float) -> None:
        """Up to the next KV that is known to arrive, or could come of a prompt after `upstream_s`."""
        arrival_s = self._sent[0][0] if self._sent else inf
        if arrival_s <= _next_s(server):
            _, request = heappop(self._sent)
            index = self._balance.choose(self._decode, request)
            self._answered_by[request] = len(self._prefill) + index
            self._decode[index].submit(request, arrival_s)
            return
        until_s = min(arrival_s, upstream_s)
        if self._closed_loop:
            until_s = min(until_s, first_end_elsewhere_s(server, self._decode))
        for request in server.advance(until_s, pause_at_end=self._closed_loop):
            self._end(request, server)

    def _end(self, request: int, server: SimulatedServer) -> None:
        if self._closed_loop:
            self._arrivals.ended(request, server.end_s[request])


def _next_s(server: SimulatedServer) -> float:
    return server.now_s if server.num_unfinished else inf
