"""Calls of a trace or gateway log to requests: in order of time, linked into sessions with parents and think times.

Does not know log formats (importers make `LoggedCall`s), or what links two calls (`session_links.py`).
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from workloads.importers.conversation_links import roots
from workloads.importers.openai_shapes import Message
from workloads.importers.session_links import EarlierCall, LoggedCall, SessionLinks, think_time
from workloads.request import Request, json_text


def linked(calls: Sequence[LoggedCall], losses: list[str]) -> Iterator[Request]:
    """The requests in order of time, each with what it waits for (`SessionLinks.add`)."""
    if any(call.start_s is None for call in calls):
        losses.append("not every call has a time: arrivals are unknown")
        ordered = [replace(call, start_s=None, end_s=None) for call in calls]
    else:
        ordered = sorted(calls, key=lambda call: call.start_s or 0.0)
    names = _Names(None)
    links: dict[str | None, SessionLinks] = {}
    parents: list[list[EarlierCall]] = []
    for index, call in enumerate(ordered):
        if (session := links.get(call.session)) is None:
            session = links[call.session] = SessionLinks(is_named=call.session is not None)
        parents.append(session.add(index, names.unique(call.request.request_id), call))
    names.tell(losses)
    ids = {earlier.number: earlier.name for session in links.values() for earlier in session.calls}
    first = roots([found[-1].number if found else None for found in parents])
    in_chains = {root for index, root in enumerate(first) if index != root}
    seen: Counter[str] = Counter()
    for index, call in enumerate(ordered):
        root = first[index]
        session_id = ordered[root].session or (ids[root] if root in in_chains else None)
        yield _request(call, ids[index], session_id, None if session_id is None else seen[session_id], parents[index])
        seen.update([session_id] if session_id is not None else [])


def _request(
    call: LoggedCall, name: str, session: str | None, turn: int | None, parents: Sequence[EarlierCall]
) -> Request:
    return replace(
        call.request,
        request_id=name,
        arrival_s=call.start_s,
        session_id=session,
        turn=turn,
        parent_ids=tuple(parent.name for parent in parents),
        think_s=think_time(call, parents),
    )


@dataclass(frozen=True, kw_only=True)
class CallScan:
    """What a first reading of a log tells, so that a second one can link it as it goes."""

    start_s: float
    is_last: npt.NDArray[np.bool_]  # whether a call is the last of its session
    repeated: frozenset[int]  # hashes of the ids that occur again


def scanned(calls: Iterable[LoggedCall]) -> CallScan | None:
    """None where the calls have to be read whole: out of order, without a time, or linked by their words alone."""
    first: float | None = None
    latest = -np.inf
    sessions, names = array("q"), array("q")
    for call in calls:
        if call.start_s is None or call.start_s < latest or (call.session is None and call.messages):
            return None
        first = call.start_s if first is None else first
        latest = call.start_s
        sessions.append(hash(call.session))
        names.append(hash(call.request.request_id))
    if first is None:
        return None
    hashes = np.frombuffer(sessions, np.int64)
    order = np.argsort(hashes, kind="stable")
    is_last = np.ones(len(hashes), dtype=bool)
    is_last[order[:-1]] = hashes[order[1:]] != hashes[order[:-1]]
    ids = np.sort(np.frombuffer(names, np.int64))
    return CallScan(start_s=first, is_last=is_last, repeated=frozenset(ids[1:][ids[1:] == ids[:-1]].tolist()))


def linked_in_order(calls: Iterable[LoggedCall], scan: CallScan, losses: list[str]) -> Iterator[Request]:
    """As `linked`, of calls that were `scanned`: only sessions that are not over are in memory."""
    names = _Names(scan.repeated)
    links: dict[str | None, SessionLinks] = {}
    for index, call in enumerate(calls):
        name = names.unique(call.request.request_id)
        if call.session is None:  # without messages nothing links it
            yield _request(call, name, None, None, ())
            continue
        if (session := links.get(call.session)) is None:
            session = links[call.session] = SessionLinks(is_named=True)
        turn = len(session.calls)
        yield _request(call, name, call.session, turn, session.add(index, name, call))
        if scan.is_last[index]:
            del links[call.session]
    names.tell(losses)


class _Names:
    """Ids made unique. Args: repeated: hashes of those that occur again, if known."""

    def __init__(self, repeated: frozenset[int] | None) -> None:
        self._repeated = repeated
        self._seen: Counter[int] = Counter()  # by 64-bit hash

    def unique(self, name: str) -> str:
        key = hash(name)
        if self._repeated is not None and key not in self._repeated:
            return name
        self._seen[key] += 1
        return name if self._seen[key] == 1 else f"{name}#{self._seen[key]}"

    def tell(self, losses: list[str]) -> None:
        num_repeated = sum(self._seen.values()) - len(self._seen)
        if num_repeated:
            losses.append(f"{num_repeated} ids occur again: a number was added")


def kept_messages(messages: Sequence[Message]) -> str | None:
    """Messages as the request's column holds them."""
    return json_text(list(messages)) if messages else None
