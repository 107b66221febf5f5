"""Calls of a trace or gateway log to requests: sorted, linked into sessions with parents and think times.

Does not know log formats: importers make `LoggedCall`s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from workloads.importers.conversation_links import LoggedTurn, parents_by_containment, parents_by_order, roots
from workloads.importers.openai_shapes import Message, plain_text
from workloads.request import Request, json_text

_LOOKED_BACK = 64  # calls of a session searched for an answer that this one quotes
_LEAST_QUOTED = 16  # characters: shorter answers are found anywhere by chance


@dataclass(frozen=True, kw_only=True)
class LoggedCall:
    """One call; the request is complete but for its arrival, session, turn, parents and think time."""

    request: Request
    start_s: float | None  # since 1970, or any common clock
    end_s: float | None
    session: str | None
    messages: Sequence[Message] = field(default=())
    reply: Message | None = None
    reply_text: str | None = None


def linked(calls: Sequence[LoggedCall], losses: list[str]) -> Iterator[Request]:
    """The requests in order of time.

    A call waits for the call whose conversation it continues and for those whose answers it quotes (fan-in); when it
    does neither, for the last call of its session that had ended.
    """
    if any(call.start_s is None for call in calls):
        losses.append("not every call has a time: arrivals are unknown")
        ordered = [replace(call, start_s=None, end_s=None) for call in calls]
    else:
        ordered = sorted(calls, key=lambda call: call.start_s or 0.0)
    ids = _unique_ids(ordered, losses)
    parents = _parents(ordered)
    first = roots([found[-1] if found else None for found in parents])
    in_chains = {root for index, root in enumerate(first) if index != root}
    seen: Counter[str] = Counter()
    for index, call in enumerate(ordered):
        root = first[index]
        session = ordered[root].session or (ids[root] if root in in_chains else None)
        yield replace(
            call.request,
            request_id=ids[index],
            arrival_s=call.start_s,
            session_id=session,
            turn=None if session is None else seen[session],
            parent_ids=tuple(ids[parent] for parent in parents[index]),
            think_s=_think(call, [ordered[parent] for parent in parents[index]]),
        )
        seen.update([session] if session is not None else [])


def _parents(calls: Sequence[LoggedCall]) -> list[list[int]]:
    turns = [_turn(call) for call in calls]
    continued = parents_by_containment(turns)
    by_order = parents_by_order(turns, [None] * len(turns))
    parents: list[list[int]] = []
    sessions: dict[str, list[int]] = {}
    for index, call in enumerate(calls):
        earlier = sessions.setdefault(call.session, []) if call.session is not None else []
        found = set(_quoted(calls, index, earlier[-_LOOKED_BACK:]))
        if continued[index] is not None:
            found.add(int(continued[index] or 0))
        chosen = sorted(_nearest(found, parents))
        if not chosen and by_order[index] is not None:
            chosen = [int(by_order[index] or 0)]
        parents.append(chosen)
        earlier.append(index)
    return parents


def _turn(call: LoggedCall) -> LoggedTurn:
    return LoggedTurn(
        messages=call.messages, reply=call.reply, session=call.session, start_s=call.start_s, end_s=call.end_s
    )


def _quoted(calls: Sequence[LoggedCall], index: int, earlier: Sequence[int]) -> Iterator[int]:
    """Earlier calls that had ended and whose answer stands in this call's messages."""
    call = calls[index]
    words = "\n".join(plain_text(message) for message in call.messages)
    for other in earlier:
        answer, end = (calls[other].reply_text or "").strip(), calls[other].end_s
        ended = end is None or call.start_s is None or end <= call.start_s
        if ended and len(answer) >= _LEAST_QUOTED and answer in words:
            yield other


def _nearest(found: set[int], parents: Sequence[Sequence[int]]) -> set[int]:
    """Without those that others of them wait for anyway."""
    waited: set[int] = set()
    for start in found:
        todo = list(parents[start])
        while todo:
            step = todo.pop()
            if step not in waited:
                waited.add(step)
                todo.extend(parents[step])
    return found - waited


def _think(call: LoggedCall, parents: Sequence[LoggedCall]) -> float | None:
    """Start minus the last parent's end, where all are known."""
    ends = [parent.end_s for parent in parents if parent.end_s is not None]
    if call.start_s is None or not parents or len(ends) < len(parents):
        return None
    return max(0.0, call.start_s - max(ends))


def _unique_ids(calls: Sequence[LoggedCall], losses: list[str]) -> list[str]:
    ids: list[str] = []
    seen: Counter[str] = Counter()
    for call in calls:
        name = call.request.request_id
        seen.update([name])
        ids.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    num_repeated = sum(count - 1 for count in seen.values())
    if num_repeated:
        losses.append(f"{num_repeated} ids occur again: a number was added")
    return ids


def kept_messages(messages: Sequence[Message]) -> str | None:
    """Messages as the request's column holds them."""
    return json_text(list(messages)) if messages else None
