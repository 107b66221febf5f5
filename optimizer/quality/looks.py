"""`Look`: how much of the reference one look at a candidate compares, and whether it was enough.

Does not ask a server.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from optimizer.quality.reference import Reference
from workloads.estimate import Estimate

FORCED_RESPONSE_TOKENS = 4000  # tokens of responses whose distributions a look of scale 1 compares
FORCED_TOKENS = 60_000  # with their prompts, for which engines report distributions as well


class Look(NamedTuple):
    """The first so many answers of their kind: those with a score, and those scored token by token."""

    num_scored: int
    num_forced: int


def look_at(reference: Reference, num_requests: int, *, scale: float) -> Look:
    """The share of the reference that `num_requests` requests and `scale` times the forced tokens make up."""
    scored = [answer for answer in reference.answers[:num_requests] if answer.score is not None]
    forced = [(len(a.prompt_ids), len(a.response_ids)) for a in reference.answers if a.top is not None]
    return Look(len(scored) if reference.compares_checks else 0, num_forced(forced, scale=scale))


def num_forced(lengths: Iterable[tuple[int, int]], *, scale: float) -> int:
    """How many sequences of these (prompt, response) lengths are scored token by token; at least one."""
    num_sequences = num_response = num_all = 0
    for prompt, response in lengths:
        num_response += response
        num_all += prompt + response
        too_many = num_response > scale * FORCED_RESPONSE_TOKENS or num_all > scale * FORCED_TOKENS
        if num_sequences and too_many:
            break
        num_sequences += 1
    return num_sequences


def decides(quality: Estimate, floor: float) -> bool:
    """Whether the interval lies on one side of the floor."""
    return quality.low >= floor or quality.high < floor
