"""From what a candidate said and how it weighed the reference's tokens to its `QualityScore`; no requests are sent.

Does not know servers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.backend import EngineError, FailureKind
from optimizer.quality.divergence import ResponseDivergence
from optimizer.quality.intervals import Floats, kept_share_interval, mean_interval
from optimizer.quality.reference import Reference
from optimizer.quality.tasks import mean_by_task
from optimizer.results import QualityScore
from workloads.estimate import Estimate
from workloads.request import Request


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A candidate beside the reference; both sequences belong to the reference's first answers of their kind."""

    divergences: tuple[ResponseDivergence, ...]  # of answers with `top`
    scores: tuple[float, ...]  # of answers with a `score`; empty when checks are not compared

    def and_more(self, other: Compared) -> Compared:
        return Compared(divergences=self.divergences + other.divergences, scores=self.scores + other.scores)


def quality_score(
    quality_class: str,
    reference: Reference,
    compared: Compared,
    *,
    requests: Mapping[str, Request],
    notes: Sequence[str] = (),
) -> QualityScore:
    """`quality` = Σ candidate's scores / Σ reference's on the same requests where checks exist, else top-1 agreement.

    Intervals are those of `kept_share_interval`, by request; a reference that fails every check leaves the agreement.

    Raises:
        EngineError: UNSUPPORTED when there is neither: no checks, and a server that does not score prompts.
    """
    agreement, kl = _agreement(compared.divergences)
    scored = [answer for answer in reference.answers if answer.score is not None][: len(compared.scores)]
    theirs = np.array([answer.score for answer in scored], dtype=np.float64)
    mine = np.array(compared.scores, dtype=np.float64)
    by_checks = theirs.sum() > 0
    quality = kept_share_interval(mine, theirs) if by_checks else agreement
    if quality is None:
        what = "quality cannot be told: the server does not score prompts, and no checks of the workload tell it"
        fix = "Give a workload with checks, or leave alone what changes the numbers"
        raise EngineError(f"{what}. {fix}", kind=FailureKind.UNSUPPORTED)
    by_task = mean_by_task((requests[a.request_id], s) for a, s in zip(scored, compared.scores, strict=True))
    return QualityScore(
        quality_class=quality_class,
        quality=quality,
        top1_agreement=agreement,
        kl_nats=kl,
        checks_score=mean_interval(mine, np.ones_like(mine)) if by_checks else None,
        checks_by_task=by_task if by_checks else {},
        num_requests=quality.num_samples,
        num_tokens=sum(divergence.num_tokens for divergence in compared.divergences),
        note=". ".join([_basis(reference, by_checks), *_unscored(reference), *notes]),
    )


def _agreement(divergences: Sequence[ResponseDivergence]) -> tuple[Estimate, Estimate] | tuple[None, None]:
    """Top-1 agreement and KL per token; None without any."""
    if not divergences:
        return None, None
    tokens = _floats([divergence.num_tokens for divergence in divergences])
    agreements = _floats([divergence.num_agreements for divergence in divergences])
    kl = _floats([divergence.kl_nats for divergence in divergences])
    return kept_share_interval(agreements, tokens), mean_interval(kl, tokens)


def _floats(values: Sequence[float]) -> Floats:
    return np.array(values, dtype=np.float64)


def _unscored(reference: Reference) -> list[str]:
    return [] if reference.is_scored else ["the server does not score prompts: tokens are not compared, only checks"]


def _basis(reference: Reference, by_checks: bool) -> str:
    if by_checks:
        return "quality is the score of the workload's checks relative to the reference"
    if any(answer.score is not None for answer in reference.answers):
        return "the reference fails every check of the workload: quality is the top-1 agreement with it"
    return "quality is the top-1 agreement with the reference"


def reference_score(
    quality_class: str, reference: Reference, *, requests: Mapping[str, Request], notes: Sequence[str] = ()
) -> QualityScore:
    """The reference itself: 1 by definition, its checks' score measured."""
    scored = [answer for answer in reference.answers if answer.score is not None]
    mine = _floats([answer.score or 0.0 for answer in scored])
    tokens = sum(len(answer.response_ids) for answer in reference.answers if answer.top is not None)
    exact = Estimate(value=1.0, low=1.0, high=1.0, num_samples=len(reference.answers))
    zero = Estimate(value=0.0, low=0.0, high=0.0, num_samples=len(reference.answers))
    refused = [f"{reference.num_refused} requests were refused by the engine"] if reference.num_refused else []
    return QualityScore(
        quality_class=quality_class,
        quality=exact,
        top1_agreement=exact if reference.is_scored else None,
        kl_nats=zero if reference.is_scored else None,
        checks_score=mean_interval(mine, np.ones_like(mine)) if len(mine) else None,
        checks_by_task=mean_by_task((requests[a.request_id], a.score or 0.0) for a in scored),
        num_requests=len(reference.answers),
        num_tokens=tokens,
        is_reference=True,
        note=". ".join(["the reference: 1 by definition", *_unscored(reference), *refused, *notes]),
    )
