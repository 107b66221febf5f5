"""`Row`: how often early and full decisions agree, and how many requests that took.

Does not know how they were made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from tests.benchmarks.short_trials.study import Verdict


@dataclass(frozen=True, kw_only=True)
class Row:
    """`agreement` with its 95% interval (Clopper-Pearson); `fewer` is requests of the full traces over those sent;
    `fewer_if_kept_whole` when what is kept is replayed to its end, as `fopt run` does."""

    case: str
    decision: str
    n: int
    agreement: float
    low: float
    high: float
    fewer: float
    fewer_if_kept_whole: float
    median_sent: float
    undecided: int


def row_of(case: str, decision: str, verdicts: Sequence[Verdict]) -> Row:
    num, right = len(verdicts), sum(v.early is None or v.early in v.full for v in verdicts)
    low = float(beta.ppf(0.025, right, num - right + 1)) if right else 0.0
    high = float(beta.ppf(0.975, right + 1, num - right)) if right < num else 1.0
    sent = np.array([v.num_sent for v in verdicts])
    fewer = sum(v.num_requests for v in verdicts) / sent.sum()
    whole = sum(v.num_requests if v.early == "kept" else v.num_sent for v in verdicts)
    undecided = sum(v.early is None for v in verdicts)
    return Row(
        case=case,
        decision=decision,
        n=num,
        agreement=right / num,
        low=low,
        high=high,
        fewer=float(fewer),
        fewer_if_kept_whole=float(sum(v.num_requests for v in verdicts) / whole),
        median_sent=float(np.median(sent)),
        undecided=undecided,
    )
