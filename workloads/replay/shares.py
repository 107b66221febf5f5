"""Which client process sends which requests: whole sessions, and call graphs with all their parents.

Does not know processes or when requests are due.
"""

from __future__ import annotations

from collections.abc import Sequence

from workloads.request import Request

_REQUEST_TOKENS = 16  # what sending a request costs a client, in streamed tokens: about as much as reading 16 of them


def share_out(requests: Sequence[Request], num_clients: int) -> list[list[int]]:
    """Rows of `requests` by client, in order; no client is left without any, so there may be fewer than asked for.

    Groups go, in the order in which they begin, to the client that has the least to do so far: every client has its
    part of every stretch of the traffic.
    """
    groups = _groups(requests)
    shares: list[list[int]] = [[] for _ in range(max(1, min(num_clients, len(groups))))]
    loads = [0] * len(shares)
    for group in sorted(groups, key=lambda rows: _begin(requests, rows)):
        least = loads.index(min(loads))
        shares[least] += group
        loads[least] += sum(_REQUEST_TOKENS + (requests[row].output_tokens or 0) for row in group)
    return [sorted(share) for share in shares]


def split_slots(num_slots: int, num_clients: int) -> list[int]:
    """A number in flight as equal parts; the first have one more where it does not divide."""
    return [num_slots // num_clients + (client < num_slots % num_clients) for client in range(num_clients)]


def _groups(requests: Sequence[Request]) -> list[list[int]]:
    """Rows that belong together: of one session, or one waiting for the other, however indirectly."""
    leader = list(range(len(requests)))

    def find(row: int) -> int:
        while leader[row] != row:
            leader[row] = leader[leader[row]]
            row = leader[row]
        return row

    row_of = {request.request_id: row for row, request in enumerate(requests)}
    first_of_session: dict[str, int] = {}
    for row, request in enumerate(requests):
        for parent in request.parent_ids:
            leader[find(row)] = find(row_of[parent])
        if request.session_id is not None:
            leader[find(row)] = find(first_of_session.setdefault(request.session_id, row))
    groups: dict[int, list[int]] = {}
    for row in range(len(requests)):
        groups.setdefault(find(row), []).append(row)
    return list(groups.values())


def _begin(requests: Sequence[Request], rows: Sequence[int]) -> tuple[float, int]:
    arrivals = [arrival for row in rows if (arrival := requests[row].arrival_s) is not None]
    return min(arrivals, default=0.0), rows[0]
