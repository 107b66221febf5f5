"""`ObservedFeatures`: the target's latest hidden states of every running sequence, for heads that read them.

Does not know heads.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import NamedTuple

from torch import Tensor

from engine.bundled.paged_model import Forward
from engine.bundled.scheduler import ScheduledSequence
from engine.bundled.sequence import Sequence


class Features(NamedTuple):
    """Hidden states [n, H] of a sequence's positions from `start` on; those of rejected drafts are at the end."""

    start: int
    rows: Tensor

    def at(self, first: int, last: int) -> Tensor:
        """Rows of the positions `first` to `last`, both included."""
        return self.rows[first - self.start : last - self.start + 1]


class ObservedFeatures:
    """Filled by every target pass."""

    def __init__(self) -> None:
        self._by_request: dict[str, Features] = {}

    def observe(self, scheduled: Seq[ScheduledSequence], forward: Forward) -> None:
        first = 0
        for item, length in zip(scheduled, forward.batch.lengths.tolist(), strict=True):
            rows = forward.hidden[first : first + length]
            self._by_request[item.sequence.request_id] = Features(item.sequence.num_computed_tokens, rows)
            first += length

    def of(self, sequence: Sequence) -> Features | None:
        """None before the first pass."""
        return self._by_request.get(sequence.request_id)

    def forget(self, sequence: Sequence) -> None:
        self._by_request.pop(sequence.request_id, None)
