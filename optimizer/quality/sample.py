"""`QualitySample`: which requests of a workload quality is evaluated on, and how each is asked.

Does not ask anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from optimizer.errors import OptimizerError
from optimizer.quality.tasks import scoring_checks
from workloads.request import Request
from workloads.workload import Workload

LONG_PROMPT_TOKENS = 4096  # requests above it are left out as long as there are others: each is scored token by token


@dataclass(frozen=True, kw_only=True)
class QualitySample:
    """In order of use: whoever needs fewer requests takes the first ones."""

    requests: tuple[Request, ...]
    notes: tuple[str, ...] = ()


def choose_sample(workload: Workload, num_requests: int, *, seed: int = 0) -> QualitySample:
    """Requests in random order, those with checks alone where there are any.

    Raises:
        OptimizerError: a workload without requests.
    """
    requests = [request for request in workload.requests() if request.status in (None, "ok")]
    notes = []
    checked = [request for request in requests if scoring_checks(request)]
    if checked:
        requests = checked
    elif any(request.checks for request in requests):
        notes.append("Python checks are not run; quality is the agreement of tokens")
    short = [request for request in requests if (request.input_tokens or 0) <= LONG_PROMPT_TOKENS]
    if short and len(short) < len(requests):
        num_long = len(requests) - len(short)
        notes.append(f"{num_long} requests with prompts over {LONG_PROMPT_TOKENS} tokens are left out")
    if not requests:
        raise OptimizerError(f"workload {workload.metadata.name!r} has no request to evaluate quality on")
    drawn = _shuffled(short or requests, seed)[:num_requests]
    if any(_is_synthetic(request) for request in drawn):
        notes.append("the workload has no texts: quality is measured on synthetic prompts")
    return QualitySample(requests=tuple(drawn), notes=tuple(notes))


def _shuffled(requests: list[Request], seed: int) -> list[Request]:
    order = np.random.default_rng(seed).permutation(len(requests))
    return [requests[i] for i in order]


def _is_synthetic(request: Request) -> bool:
    return request.messages is None and request.prompt is None and request.prompt_token_ids is None
