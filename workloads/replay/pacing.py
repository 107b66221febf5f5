"""When each request is due: open loop, session-aware, or a fixed number in flight.

Does not know clocks or servers: it turns (request finished at t) into (requests due at t').
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from workloads.errors import WorkloadError
from workloads.request import Request
from workloads.workload import Workload

Mode = Literal["auto", "open_loop", "sessions", "concurrency"]
Due = list[tuple[float, int]]  # (intended start in seconds from the replay's start, request)


class Pacing(Protocol):
    """Decides intended starts."""

    def first(self) -> Due:
        """What is due without waiting for any answer."""
        ...

    def finished(self, request: int, end_s: float) -> Due:
        """What becomes due because this request ended."""
        ...


class OpenLoop:
    """Every request at its recorded arrival, whatever the server does."""

    def __init__(self, requests: Sequence[Request], *, speedup: float, origin_s: float | None = None) -> None:
        origin = origin_of(requests, "open_loop") if origin_s is None else origin_s
        self._due = [((_arrival(request) - origin) / speedup, i) for i, request in enumerate(requests)]

    def first(self) -> Due:
        return self._due

    def finished(self, request: int, end_s: float) -> Due:  # noqa: ARG002
        return []


class _Family(NamedTuple):
    parents: list[list[int]]
    children: list[list[int]]


class SessionAware:
    """First turns at their recorded arrival, later turns when their parents have ended plus the think time."""

    def __init__(self, requests: Sequence[Request], *, speedup: float, origin_s: float | None = None) -> None:
        self._requests = requests
        self._speedup = speedup
        self._origin_s = origin_of(requests, "sessions") if origin_s is None else origin_s
        self._family = _family(requests)
        self._waiting = [len(parents) for parents in self._family.parents]
        self._latest_end = [0.0] * len(requests)

    def first(self) -> Due:
        roots = [i for i, count in enumerate(self._waiting) if not count]
        return [((_arrival(self._requests[i]) - self._origin_s) / self._speedup, i) for i in roots]

    def finished(self, request: int, end_s: float) -> Due:
        due = []
        for child in self._family.children[request]:
            self._latest_end[child] = max(self._latest_end[child], end_s)
            self._waiting[child] -= 1
            if not self._waiting[child]:
                due.append((self._latest_end[child] + self._think(child) / self._speedup, child))
        return due

    def _think(self, child: int) -> float:
        """The recorded think time, else the recorded gap after the parents' recorded end, else none."""
        request = self._requests[child]
        if request.think_s is not None:
            return request.think_s
        parents = [self._requests[parent] for parent in self._family.parents[child]]
        ends = [p.arrival_s + p.e2el_s for p in parents if p.arrival_s is not None and p.e2el_s is not None]
        if request.arrival_s is None or len(ends) < len(parents):
            return 0.0
        return max(0.0, request.arrival_s - max(ends))


class Concurrency:
    """A fixed number in flight: a slot that frees takes the next turn of its session, else the next first turn.

    Recorded arrivals and think times are not used; the intended start is the moment the slot is free.
    """

    def __init__(self, requests: Sequence[Request], *, slots: int) -> None:
        self._family = _family(requests)
        self._waiting = [len(parents) for parents in self._family.parents]
        self._ready = deque(i for i, count in enumerate(self._waiting) if not count)
        self._free = slots

    def first(self) -> Due:
        return self._take(0.0)

    def finished(self, request: int, end_s: float) -> Due:
        self._free += 1
        for child in self._family.children[request]:
            self._waiting[child] -= 1
            if not self._waiting[child]:
                self._ready.appendleft(child)
        return self._take(end_s)

    def _take(self, now: float) -> Due:
        taken = [self._ready.popleft() for _ in range(min(self._free, len(self._ready)))]
        self._free -= len(taken)
        return [(now, request) for request in taken]


def choose_mode(workload: Workload, mode: Mode) -> Mode:
    """The mode to replay in: `auto` is `sessions` where turns depend on replies, else `open_loop`.

    Raises:
        WorkloadError: the workload cannot drive it.
    """
    if mode == "auto":
        mode = "sessions" if "closed_loop" in workload.capabilities else "open_loop"
    if mode == "open_loop":
        workload.require("open_loop")
    if mode == "sessions":
        workload.require("closed_loop")
    return mode


def origin_of(requests: Sequence[Request], mode: Mode) -> float:
    """The recorded arrival, seconds, that a chosen mode replays at second 0: the first of those it goes by.

    Raises:
        WorkloadError: a first turn without an arrival.
    """
    if mode == "concurrency":
        return 0.0
    timed = (request for request in requests if mode == "open_loop" or not request.parent_ids)
    return min(map(_arrival, timed), default=0.0)


def make_pacing(
    requests: Sequence[Request],
    mode: Mode,
    *,
    speedup: float,
    concurrency: int | None,
    origin_s: float | None = None,
) -> Pacing:
    """The pacing of a chosen mode.

    Args:
        origin_s: see `origin_of`, of the whole workload where these requests are a share of it; None: theirs.

    Raises:
        WorkloadError: a first turn without an arrival, or no number for `concurrency`.
    """
    if mode == "open_loop":
        return OpenLoop(requests, speedup=speedup, origin_s=origin_s)
    if mode == "sessions":
        return SessionAware(requests, speedup=speedup, origin_s=origin_s)
    if concurrency is None or concurrency < 1:
        raise WorkloadError("mode concurrency needs how many requests to keep in flight", fix="Give concurrency >= 1")
    return Concurrency(requests, slots=concurrency)


def _arrival(request: Request) -> float:
    if request.arrival_s is None:
        fix = "Replay with a fixed concurrency, which needs no arrivals"
        raise WorkloadError(f"request {request.request_id!r} has no recorded arrival", fix=fix)
    return request.arrival_s


def _family(requests: Sequence[Request]) -> _Family:
    index = {request.request_id: i for i, request in enumerate(requests)}
    parents = [[index[parent] for parent in dict.fromkeys(r.parent_ids)] for r in requests]
    children: list[list[int]] = [[] for _ in requests]
    for child, its_parents in enumerate(parents):
        for parent in its_parents:
            children[parent].append(child)
    return _Family(parents, children)
