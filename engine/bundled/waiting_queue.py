"""Waiting queues: which sequence is admitted next, by policy.

Do not know budgets, blocks or adapters' places: the scheduler admits the first sequence or nobody, but where the first
must wait for its adapter.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import Protocol

from engine.bundled.sequence import Sequence
from engine.config import SchedulingPolicy

PROMPT_TOKEN_WEIGHT = 1  # of the service a client received; an output token costs a share of a whole step
OUTPUT_TOKEN_WEIGHT = 2


class WaitingQueue(Protocol):
    """Sequences that wait for their first step, or again after a preemption."""

    def add(self, sequence: Sequence) -> None: ...

    def add_preempted(self, sequence: Sequence) -> None:
        """Put back what was admitted before: ahead of everything that has no better claim."""
        ...

    def first(self) -> Sequence:
        """The next to be admitted; the queue must not be empty."""
        ...

    def remove(self, sequence: Sequence) -> None: ...

    def served(self, sequence: Sequence, *, num_prompt_tokens: int, num_output_tokens: int) -> None:
        """Told of every step's work, for policies that account for it."""
        ...

    def rank(self, sequence: Sequence) -> tuple[int, int]:
        """Orders running sequences: under memory pressure the last is preempted first."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sequence]:
        """As they would be admitted if no other work was done."""
        ...


class FirstComeFirstServed:
    """By arrival, also of what was preempted: it comes back first."""

    def __init__(self) -> None:
        self._sequences: deque[Sequence] = deque()

    def add(self, sequence: Sequence) -> None:
        self._sequences.append(sequence)

    def add_preempted(self, sequence: Sequence) -> None:
        bisect.insort(self._sequences, sequence, key=self.rank)

    def first(self) -> Sequence:
        return self._sequences[0]

    def remove(self, sequence: Sequence) -> None:
        if self._sequences[0] is sequence:
            self._sequences.popleft()
        else:
            self._sequences.remove(sequence)

    def served(self, sequence: Sequence, *, num_prompt_tokens: int, num_output_tokens: int) -> None:
        pass

    def rank(self, sequence: Sequence) -> tuple[int, int]:
        return 0, sequence.arrival

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._sequences)


class ByPriority:
    """The smallest `priority` first, then by arrival, as vLLM's `--scheduling-policy priority`."""

    def __init__(self) -> None:
        self._sequences: list[Sequence] = []  # by rank

    def add(self, sequence: Sequence) -> None:
        bisect.insort(self._sequences, sequence, key=self.rank)

    add_preempted = add

    def first(self) -> Sequence:
        return self._sequences[0]

    def remove(self, sequence: Sequence) -> None:
        self._sequences.remove(sequence)

    def served(self, sequence: Sequence, *, num_prompt_tokens: int, num_output_tokens: int) -> None:
        pass

    def rank(self, sequence: Sequence) -> tuple[int, int]:
        return sequence.standing.priority, sequence.arrival

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._sequences)


class FairToClients:
    """The client that received least service first, its requests by arrival.

    The Virtual Token Counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024), algorithm 2:
    a client's counter grows with the weighted tokens computed for it; one that comes (back) is lifted to the smallest
    counter of those that wait, so that nobody saves up service while absent. Between two clients that always wait the
    difference of service is bounded, whatever either sends. Unlike the paper, accounts end when nobody waits: service
    that kept nobody waiting is no debt.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Sequence]] = {}  # clients with waiting sequences only
        self._service: dict[str, float] = {}

    def add(self, sequence: Sequence) -> None:
        client = sequence.standing.client
        if client not in self._waiting:
            floor = min((self._service[other] for other in self._waiting), default=0.0)
            self._service[client] = max(self._service.get(client, 0.0), floor)
        self._waiting.setdefault(client, deque()).append(sequence)

    def add_preempted(self, sequence: Sequence) -> None:
        self._service.setdefault(sequence.standing.client, 0.0)
        own = self._waiting.setdefault(sequence.standing.client, deque())
        bisect.insort(own, sequence, key=self.rank)

    def first(self) -> Sequence:
        return min((own[0] for own in self._waiting.values()), key=self._claim)

    def remove(self, sequence: Sequence) -> None:
        client = sequence.standing.client
        self._waiting[client].remove(sequence)
        if not self._waiting[client]:
            del self._waiting[client]
            if not self._waiting:
                self._service.clear()

    def served(self, sequence: Sequence, *, num_prompt_tokens: int, num_output_tokens: int) -> None:
        client = sequence.standing.client
        weighted = PROMPT_TOKEN_WEIGHT * num_prompt_tokens + OUTPUT_TOKEN_WEIGHT * num_output_tokens
        self._service[client] = self._service.get(client, 0.0) + weighted

    def rank(self, sequence: Sequence) -> tuple[int, int]:
        return 0, sequence.arrival

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __iter__(self) -> Iterator[Sequence]:
        return iter(sorted(chain.from_iterable(self._waiting.values()), key=self._claim))

    def _claim(self, sequence: Sequence) -> tuple[float, int]:
        """The smallest is first in line."""
        return self._service[sequence.standing.client], sequence.arrival


def make_waiting_queue(policy: SchedulingPolicy) -> WaitingQueue:
    return _POLICIES[policy]()


_POLICIES: dict[SchedulingPolicy, type[FirstComeFirstServed] | type[ByPriority] | type[FairToClients]] = {
    "fcfs": FirstComeFirstServed,
    "priority": ByPriority,
    "fair": FairToClients,
}
