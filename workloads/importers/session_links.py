"""Which earlier calls of its session a logged call waits for, as calls are added in order of time.

Does not know log formats, or other sessions: who makes one for each can forget it when the session is over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from workloads.importers.conversation_links import extended, prefix_digests
from workloads.importers.openai_shapes import Message, plain_text
from workloads.request import Request

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


class EarlierCall(NamedTuple):
    """What is kept of a call: its number among all, its id, and its times."""

    number: int
    name: str
    start_s: float | None
    end_s: float | None


class SessionLinks:
    """The calls of one session so far.

    Args:
        is_named: the log says that these calls are one session, so that order and quotes link them too.
    """

    def __init__(self, *, is_named: bool) -> None:
        self._is_named = is_named
        self._continued: dict[bytes, int] = {}  # digest of a conversation: the call after which it stood so
        self._answers: deque[tuple[int, str]] = deque(maxlen=_LOOKED_BACK)
        self._parents: list[list[int]] = []
        self.calls: list[EarlierCall] = []

    def add(self, number: int, name: str, call: LoggedCall) -> list[EarlierCall]:
        """The calls that this one waits for.

        It waits for the call whose conversation it continues and for those whose answers it quotes (fan-in); when it
        does neither, for the last call of its session that had ended.
        """
        digests = prefix_digests(call.messages)
        found = set(self._quoted(call)) if self._is_named else set[int]()
        continued = (self._continued.get(digest) for digest in reversed(digests[:-1]))
        found |= set(next(([place] for place in continued if place is not None), []))
        chosen = sorted(self._nearest(found)) or (self._last_ended(call) if self._is_named else [])
        place = len(self.calls)
        if call.reply is not None and call.messages:
            self._continued[extended(digests[-1], call.reply)] = place
        self._answers.append((place, (call.reply_text or "").strip() if self._is_named else ""))
        self._parents.append(chosen)
        self.calls.append(EarlierCall(number, name, call.start_s, call.end_s))
        return [self.calls[parent] for parent in chosen]

    def _quoted(self, call: LoggedCall) -> Iterator[int]:
        """Earlier calls that had ended and whose answer stands in this call's messages."""
        words = "\n".join(plain_text(message) for message in call.messages)
        for place, answer in self._answers:
            end = self.calls[place].end_s
            ended = end is None or call.start_s is None or end <= call.start_s
            if ended and len(answer) >= _LEAST_QUOTED and answer in words:
                yield place

    def _nearest(self, found: set[int]) -> set[int]:
        """Without those that others of them wait for anyway."""
        waited: set[int] = set()
        for start in found:
            todo = list(self._parents[start])
            while todo:
                step = todo.pop()
                if step not in waited:
                    waited.add(step)
                    todo.extend(self._parents[step])
        return found - waited

    def _last_ended(self, call: LoggedCall) -> list[int]:
        for place in range(len(self.calls) - 1, -1, -1):
            earlier = self.calls[place]
            end = earlier.end_s if earlier.end_s is not None else earlier.start_s
            if end is None or call.start_s is None or end <= call.start_s:
                return [place]
        return []


def think_time(call: LoggedCall, parents: Sequence[EarlierCall]) -> float | None:
    """Start minus the last parent's end, where all are known."""
    ends = [parent.end_s for parent in parents if parent.end_s is not None]
    if call.start_s is None or not parents or len(ends) < len(parents):
        return None
    return max(0.0, call.start_s - max(ends))
