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
    may_accept: bool = True  # else it can only reject


def plan_looks(reference: Reference, *, first: int, last: int, floor: float | None) -> tuple[Look, ...]:
    """What is compared before each decision; without a floor there is nothing to decide and one look.

    A third of the first look can reject what is clearly damaged. `first` requests can accept, and when they do not
    decide `last` requests are the final word. Where checks decide, later looks add no tokens to the divergence.
    """
    if floor is None:
        return (look_at(reference, first, scale=1.0),)
    extension = 1.0 if reference.compares_checks else last / first
    glance = look_at(reference, max(1, first // 3), scale=1 / 3)._replace(may_accept=False)
    planned = (glance, look_at(reference, first, scale=1.0), look_at(reference, last, scale=extension))
    return tuple(look for i, look in enumerate(planned) if i == 0 or look[:2] != planned[i - 1][:2])


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


def decides(look: Look, quality: Estimate, floor: float) -> bool:
    """Whether the interval lies on one side of the floor, and this look may say so."""
    return quality.high < floor or (look.may_accept and quality.low >= floor)


def is_futile(look: Look, quality: Estimate, floor: float) -> bool:
    """Whether more requests are not worth their time: the value itself is under the floor after a full look.

    Giving up early never accepts anything, so it does not add to the risk of a wrong acceptance.
    """
    return look.may_accept and quality.value < floor
