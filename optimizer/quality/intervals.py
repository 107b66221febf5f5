"""Intervals of quality ratios over requests, honest also when every request came out the same.

Does not know what is compared.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from workloads.estimate import Estimate

Floats = npt.NDArray[np.float64]

NUM_RESAMPLES = 4000
CONFIDENCE = 0.95


def mean_interval(sums: Floats, counts: Floats, *, seed: int = 0) -> Estimate:
    """Σ sums / Σ counts with a Bayesian bootstrap over requests (Rubin 1981): request weights are exponential draws."""
    weights = np.random.default_rng(seed).standard_exponential((NUM_RESAMPLES, len(sums)))
    low, high = _quantiles((weights @ sums) / (weights @ counts))
    return Estimate(value=float(sums.sum() / counts.sum()), low=low, high=high, num_samples=len(sums))


def kept_share_interval(kept: Floats, of: Floats, *, seed: int = 0) -> Estimate:
    """Σ kept / Σ of: the share of something that a candidate keeps, e.g. agreeing tokens of all tokens.

    A bootstrap of requests that all came out alike claims certainty. Here the low end also draws one imagined unit
    that is lost entirely, and the high end one that is kept, each with weight Gamma(1/2) against the requests'
    Exp(1): with n units all kept the low end is the 2.5% quantile of Beta(n, 1/2), Jeffreys' binomial interval
    (Brown, Cai, DasGupta 2001), about 1 - 2.51/n. With losses it is the Bayesian bootstrap, slightly wider.
    The unit is 1: one token of an agreement, one fully right answer of a checks' score.
    Value and ends are capped at 1: a candidate gets no credit for being luckier than its reference.
    """
    rng = np.random.default_rng(seed)
    weights = rng.standard_exponential((NUM_RESAMPLES, len(of)))
    imagined = rng.standard_gamma(0.5, NUM_RESAMPLES)
    numerator, denominator = weights @ kept, weights @ of + imagined
    low, _ = _quantiles(numerator / denominator)
    _, high = _quantiles((numerator + imagined) / denominator)
    value, low, high = (min(1.0, x) for x in (float(kept.sum() / of.sum()), low, high))
    return Estimate(value=value, low=min(low, value), high=max(high, value), num_samples=len(of))


def _quantiles(draws: Floats) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
