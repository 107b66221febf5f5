"""How strongly counts speak against a share of requests above a limit, at any moment one cares to look.

A mixture of likelihood ratios is a martingale while the share is what is doubted, so it exceeds 1/α with probability
at most α however often one looks (Ville's inequality; Wald, "Sequential tests of statistical hypotheses", 1945;
Robbins, "Statistical methods related to the law of the iterated logarithm", 1970). Equivalently it is the wealth of a
gambler with three fixed bets (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting",
2024). That holds for independent requests; `clustering.py` says what becomes of it where they are not.
"""

from __future__ import annotations

import math
from typing import Literal

Direction = Literal["more", "fewer"]

# Odds of the alternatives over the doubted share's, and their weights. The middle one makes 5% of a share of 1%, Wald's
# test for little more than the 73 requests that it expects; the others find smaller and larger violations.
_ODDS = (2.3, 5.2, 20.0)
_WEIGHTS = (0.15, 0.7, 0.15)


def log_evidence(num_above: int, num_requests: int, *, share: float, direction: Direction) -> float:
    """Logarithm of Σ weight x likelihood(alternative) / likelihood(share), the alternatives being larger or smaller.

    Args:
        share: above the limit, strictly between 0 and 1.
    """
    terms = []
    for odds, weight in zip(_ODDS, _WEIGHTS, strict=True):
        ratio = (odds if direction == "more" else 1 / odds) * share / (1 - share)
        other = ratio / (1 + ratio)
        ups, downs = math.log(other / share), math.log((1 - other) / (1 - share))
        terms.append(math.log(weight) + num_above * ups + (num_requests - num_above) * downs)
    largest = max(terms)
    return largest + math.log(sum(math.exp(term - largest) for term in terms))
