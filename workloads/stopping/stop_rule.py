"""`StopRule`: what may end a replay early; `InFlight`: what is known of a request that has not ended.

Does not know any member.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from workloads.records import RequestRecord


class InFlight(NamedTuple):
    """A request that was sent and has not ended; seconds on the replay's clock."""

    request_id: str
    intended_start_s: float
    first_token_s: float | None = None
    is_ending: bool = False  # its last token came: its record is about to follow


class StopRule(Protocol):
    """Ends a replay early. It remembers: a rule serves one replay."""

    def look(self, now_s: float, ended: Sequence[RequestRecord], in_flight: Sequence[InFlight]) -> str | None:
        """Called every now and then while requests run; a reason in words stops the replay.

        Those in flight are told because the ones that end first are the fast ones: a rule that saw ended requests alone
        would take a server for faster than it is.

        Args:
            ended: since the last look, in order of ending.
            in_flight: every request that was sent and has not ended.
        """
        ...
