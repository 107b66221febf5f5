"""A workload as the simulator's traffic, and what becomes of it as request records: a replay without an engine.

Does not know schedulers or step times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.simulator.outcome import Outcome
from engine.simulator.traffic import Traffic
from optimizer.errors import OptimizerError
from workloads.record_arrays import Ints, RecordArrays
from workloads.records import RequestRecord
from workloads.request import Request
from workloads.workload import Workload

TOKEN_ID_BLOCK = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class SimulatedReplay:
    """The traffic and the requests of its rows; parents come before their followers."""

    requests: tuple[Request, ...]
    traffic: Traffic

    def arrays(self, outcome: Outcome) -> RecordArrays:
        """The records as columns, without making single records."""
        return RecordArrays(
            request_ids=tuple(request.request_id for request in self.requests),
            slo_classes=tuple(request.slo_class for request in self.requests),
            statuses=("ok",) * len(self.requests),
            intended_start_s=outcome.start_s,
            sent_s=outcome.start_s,
            end_s=outcome.end_s,
            input_tokens=self.traffic.input_tokens,
            output_tokens=self.traffic.output_tokens,
            token_times_s=outcome.token_times_s,
            token_offsets=outcome.token_offsets,
        )

    def records(self, outcome: Outcome) -> list[RequestRecord]:
        """One record a request, as a measured replay gives them."""
        times, offsets = outcome.token_times_s.tolist(), outcome.token_offsets.tolist()
        starts, ends = outcome.start_s.tolist(), outcome.end_s.tolist()
        return [
            RequestRecord(
                request_id=request.request_id,
                session_id=request.session_id,
                turn=request.turn,
                slo_class=request.slo_class,
                intended_start_s=starts[row],
                sent_s=starts[row],
                first_token_s=times[offsets[row]],
                token_times_s=tuple(times[offsets[row] : offsets[row + 1]]),
                end_s=ends[row],
                input_tokens=int(self.traffic.input_tokens[row]),
                output_tokens=int(self.traffic.output_tokens[row]),
                status="ok",
                finish_reason="length",
            )
            for row, request in enumerate(self.requests)
        ]


def simulated_replay(
    workload: Workload, *, closed_loop: bool = False, token_ids: Callable[[Request], Sequence[int]] | None = None
) -> SimulatedReplay:
    """The workload's arrivals, lengths, priorities and shared prefixes.

    Requests without output tokens are left out: they were refused or never answered.

    Args:
        closed_loop: a request with parents waits for the last of them (the one latest in the file) and its think time,
            instead of its recorded arrival.
        token_ids: of a request's prompt, to know shared prefixes by; None: those in the workload.

    Raises:
        OptimizerError: requests without arrivals, or without token counts.
    """
    requests = [request for request in workload if request.output_tokens != 0]
    name = workload.metadata.name
    if not requests:
        raise OptimizerError(f"workload {name!r} has no requests to simulate. Give one with at least one request")
    if any(not request.input_tokens or request.output_tokens is None for request in requests):
        raise OptimizerError(f"workload {name!r} has requests without token counts. Import it with a tokenizer")
    rows = {request.request_id: row for row, request in enumerate(requests)}
    parents = [_parent(request, rows) if closed_loop else -1 for request in requests]
    order = _parents_first(parents)
    place = {row: index for index, row in enumerate(order)}
    requests, parents = [requests[row] for row in order], [parents[row] for row in order]
    parents = [place[parent] if parent >= 0 else -1 for parent in parents]
    late = [
        request for request, parent in zip(requests, parents, strict=True) if parent < 0 and request.arrival_s is None
    ]
    if late:
        raise OptimizerError(
            f"workload {name!r}: request {late[0].request_id} has no arrival time. Import it with arrivals"
        )
    hashes, size = _block_hashes(requests, workload, token_ids or _recorded_token_ids)
    _lend_to_parents(hashes, parents, requests, size)
    return SimulatedReplay(
        requests=tuple(requests),
        traffic=Traffic(
            arrival_s=np.array([request.arrival_s or 0.0 for request in requests]),
            input_tokens=np.array([request.input_tokens for request in requests], np.int64),
            output_tokens=np.array([request.output_tokens for request in requests], np.int64),
            parent=np.array(parents, np.int64) if max(parents) >= 0 else None,
            think_s=np.array([request.think_s or 0.0 for request in requests]) if max(parents) >= 0 else None,
            priority=_priorities(requests),
            client=_clients(requests),
            block_hashes=hashes if any(hashes) else None,
            hash_block_tokens=size,
        ),
    )


def _parent(request: Request, rows: dict[str, int]) -> int:
    return max((rows[parent] for parent in request.parent_ids if parent in rows), default=-1)


def _parents_first(parents: Sequence[int]) -> list[int]:
    """Rows by the number of ancestors, else as they are."""
    depths = [0] * len(parents)
    for row in range(len(parents)):
        ancestor = parents[row]
        while ancestor >= 0:
            depths[row] += 1
            ancestor = parents[ancestor]
    return sorted(range(len(parents)), key=depths.__getitem__)


def _priorities(requests: Sequence[Request]) -> Ints | None:
    if all(request.priority is None for request in requests):
        return None
    return np.array([request.priority or 0 for request in requests], np.int64)


def _clients(requests: Sequence[Request]) -> Ints | None:
    """A number for each tenant; those without one are one client."""
    if all(request.tenant is None for request in requests):
        return None
    numbers: dict[str | None, int] = {}
    return np.array([numbers.setdefault(request.tenant, len(numbers)) for request in requests], np.int64)


def _recorded_token_ids(request: Request) -> Sequence[int]:
    return request.prompt_token_ids or ()


def _block_hashes(
    requests: Sequence[Request], workload: Workload, token_ids: Callable[[Request], Sequence[int]]
) -> tuple[list[list[int]], int]:
    """Names of whole prompt blocks, recorded or made from token ids, and a block's tokens."""
    hashing = workload.metadata.prefix
    if hashing is None:
        return [_names_of_ids(token_ids(request)) for request in requests], TOKEN_ID_BLOCK
    size = hashing.block_size
    found: list[list[int]] = []
    for request in requests:
        names = list(request.prefix_hashes or ())[: (request.input_tokens or 0) // size]
        if hashing.scope == "session":
            names = [hash((request.session_id, name)) for name in names]
        found.append(names)
    return found, size


def _names_of_ids(ids: Sequence[int]) -> list[int]:
    whole = range(0, len(ids) - TOKEN_ID_BLOCK + 1, TOKEN_ID_BLOCK)
    return [hash(tuple(ids[start : start + TOKEN_ID_BLOCK])) for start in whole]


def _lend_to_parents(hashes: list[list[int]], parents: Sequence[int], requests: Sequence[Request], size: int) -> None:
    """A turn's prompt names the blocks of the answer before it, which the parent's own row does not."""
    for row, parent in enumerate(parents):
        if parent < 0:
            continue
        before = requests[parent]
        mine, theirs = hashes[row], hashes[parent]
        own = theirs[: (before.input_tokens or 0) // size]
        end = ((before.input_tokens or 0) + (before.output_tokens or 0)) // size
        if len(theirs) == len(own) and mine[: len(own)] == own:
            hashes[parent] = mine[:end]
