"""Waiting lines: which request is admitted next, by policy, as `engine/bundled/waiting_queue.py` decides it.

Do not know budgets or blocks. A request comes with the order of its arrival. Time is the server's tick: decode runs
are jumped, so that what a client receives while they last is worked out when somebody asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush

from engine.bundled.waiting_queue import OUTPUT_TOKEN_WEIGHT, PROMPT_TOKEN_WEIGHT
from engine.config import SchedulingPolicy
from engine.simulator.traffic import Ints


class ByRank(list[tuple[int, int, int]]):
    """The smallest priority first, then by arrival; with equal priorities first come, first served.

    What was preempted came before all that was never admitted, so its rank alone puts it in front.
    """

    def __init__(self, priorities: Sequence[int]) -> None:
        super().__init__()
        self._priorities = priorities

    def add(self, request: int, order: int, tick: int) -> None:  # noqa: ARG002
        heappush(self, (self._priorities[request], order, request))

    def add_preempted(self, request: int, order: int) -> None:
        heappush(self, (self._priorities[request], order, request))

    def first(self, tick: int) -> int:  # noqa: ARG002
        return self[0][2]

    def admit(self, request: int, tick: int) -> None:  # noqa: ARG002
        assert self[0][2] == request, "the first is admitted or nobody"
        heappop(self)


class FairToClients:
    """The client that received least service first, its requests by arrival; see the engine's class of this name."""

    def __init__(self, clients: Sequence[int]) -> None:
        self._clients = clients
        number = max(clients, default=0) + 1
        self._waiting: dict[int, deque[tuple[int, int]]] = {}  # client to (order, request); nobody waits: not there
        self._service = [0.0] * number  # until the tick beside it
        self._since = [0] * number
        self._rates = [0.0] * number  # output tokens that come a tick
        self._computed: list[tuple[int, int]] = []  # client and prompt tokens of the step that is under way
        self._num_waiting = 0

    def add(self, request: int, order: int, tick: int) -> None:
        client = self._clients[request]
        if client not in self._waiting:
            floor = min((self._until(other, tick) for other in self._waiting), default=0.0)
            self._service[client] = max(self._until(client, tick), floor)
            self._waiting[client] = deque()
        self._waiting[client].append((order, request))
        self._num_waiting += 1

    def add_preempted(self, request: int, order: int) -> None:
        self._waiting.setdefault(self._clients[request], deque()).appendleft((order, request))
        self._num_waiting += 1

    def first(self, tick: int) -> int:
        client = min(self._waiting, key=lambda one: (self._until(one, tick), self._waiting[one][0][0]))
        return self._waiting[client][0][1]

    def admit(self, request: int, tick: int) -> None:
        client = self._clients[request]
        assert self._waiting[client][0][1] == request, "a client's first is admitted or nobody"
        self._waiting[client].popleft()
        self._num_waiting -= 1
        if not self._waiting[client]:
            del self._waiting[client]
        if not self._waiting:  # accounts end: service that kept nobody waiting is no debt
            self._service = [0.0] * len(self._service)
            self._since = [tick] * len(self._since)

    def compute(self, request: int, num_prompt_tokens: int) -> None:
        """In the step that begins; of an answer's tokens, computed again, none are prompt tokens."""
        self._computed.append((self._clients[request], max(0, num_prompt_tokens)))

    def end_step(self, tick: int) -> None:
        """What was computed is served now: who was admitted was chosen before."""
        for client, num_prompt_tokens in self._computed:
            self._service[client] = self._until(client, tick) + PROMPT_TOKEN_WEIGHT * num_prompt_tokens
        self._computed.clear()

    def begin(self, request: int, tick: int, *, tokens_per_tick: float) -> None:
        """An answer's first token has come; the others come evenly from now on."""
        client = self._clients[request]
        self._service[client] = self._until(client, tick) + OUTPUT_TOKEN_WEIGHT
        self._rates[client] += tokens_per_tick

    def end(self, request: int, tick: int, *, tokens_per_tick: float) -> None:
        """No further tokens come of what `begin` announced."""
        client = self._clients[request]
        self._until(client, tick)
        self._rates[client] -= tokens_per_tick

    def _until(self, client: int, tick: int) -> float:
        """Bring a client's account up to `tick`."""
        came = self._rates[client] * (tick - self._since[client])
        self._service[client] += OUTPUT_TOKEN_WEIGHT * came
        self._since[client] = tick
        return self._service[client]

    def __len__(self) -> int:
        return self._num_waiting


def make_waiting_line(policy: SchedulingPolicy, *, ranks: Ints, clients: Ints | None) -> ByRank | FairToClients:
    """A line for the traffic's requests.

    Args:
        ranks: their priorities, or zeros where those do not count.
        clients: whose they are; None: all are one's.
    """
    if policy == "fair":
        return FairToClients([0] * len(ranks) if clients is None else clients.tolist())
    return ByRank(ranks.tolist())
