"""Which logged request continues which: by message containment, or by order in a named session.

Does not know log formats: it is given turns with their messages and times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from workloads.importers.openai_shapes import Message, message_key


@dataclass(frozen=True, kw_only=True)
class LoggedTurn:
    """One logged request in order of time."""

    messages: Sequence[Message]  # empty for raw prompts
    reply: Message | None
    session: str | None  # what the log names, if anything
    start_s: float | None
    end_s: float | None


def parents_by_containment(turns: Sequence[LoggedTurn]) -> list[int | None]:
    """For each turn the latest earlier one whose messages plus reply begin this one's, within one named session."""
    known: dict[tuple[str | None, bytes], int] = {}
    parents: list[int | None] = []
    for index, turn in enumerate(turns):
        prefixes = prefix_digests(turn.messages)
        candidates = (known.get((turn.session, digest)) for digest in reversed(prefixes[:-1]))
        parents.append(next((found for found in candidates if found is not None), None))
        if turn.reply is not None and turn.messages:
            known[turn.session, extended(prefixes[-1], turn.reply)] = index
    return parents


def prefix_digests(messages: Sequence[Message]) -> list[bytes]:
    """Digest of the first 1, 2, ... messages."""
    digests: list[bytes] = []
    for message in messages:
        digests.append(extended(digests[-1] if digests else b"", message))
    return digests


def extended(digest: bytes, message: Message) -> bytes:
    """Digest of the messages of another digest and this one."""
    return hashlib.blake2b(digest + message_key(message).encode(), digest_size=16).digest()


def parents_by_order(turns: Sequence[LoggedTurn], parents: list[int | None]) -> list[int | None]:
    """Fill in, inside named sessions, the latest turn that had ended when this one started."""
    filled = list(parents)
    last: dict[str, list[int]] = {}
    for index, turn in enumerate(turns):
        if turn.session is None:
            continue
        earlier = last.setdefault(turn.session, [])
        if filled[index] is None:
            filled[index] = next((other for other in reversed(earlier) if _ended_before(turns[other], turn)), None)
        earlier.append(index)
    return filled


def _ended_before(first: LoggedTurn, second: LoggedTurn) -> bool:
    end = first.end_s if first.end_s is not None else first.start_s
    return end is None or second.start_s is None or end <= second.start_s


def roots(parents: Sequence[int | None]) -> list[int]:
    """The first turn of the chain each turn belongs to; parents come before their children."""
    found: list[int] = []
    for index, parent in enumerate(parents):
        found.append(index if parent is None else found[parent])
    return found
