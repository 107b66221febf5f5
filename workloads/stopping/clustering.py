"""How many requests above a limit come together, and how much less each of them says therefore.

Requests of one busy period share its queue: if one is late its neighbours are. A test that takes them for independent
stops far too often (tests/workloads/stopping/ measures it). The design effect of cluster sampling (Kish, "Survey
Sampling", 1965), by batch means (Conway, "Some tactical problems in digital simulation", 1963), is

    clustering = max over m of  Var(requests above in m consecutive ones) / (m share (1 - share)),

1 where requests are independent. Evidence is divided by `SAFETY` x clustering, and by 1 where no clustering shows. The
safety factor is for configs that remember longer than the ones whose clustering is known, and for what a short look
cannot show: on M/M/1 and bursty queues of up to 90% load it kept false stops under 5% with references of 30% load,
where a factor of 2 did not. Does not know tests or rules.
"""

from __future__ import annotations

import numpy as np

from workloads.record_arrays import Floats

SAFETY = 4.0
INDEPENDENT = 1.8  # independent requests show more in about 1 of 50 runs of 3,000 (share 5% and 1%)
_MIN_BATCHES = 16


def clustering_of(values: Floats, share: float) -> float:
    """Of the requests among the `share` largest.

    That threshold makes runs comparable that a limit does not: each is looked at where it would just violate.

    Args:
        values: one a request, in order of intended start; NaN where a request has none.
    """
    values = values[~np.isnan(values)]
    if len(values) < 2 * _MIN_BATCHES:
        return 1.0
    above = values > np.quantile(values, 1 - share)
    largest, size = 1.0, 2
    while len(above) // size >= _MIN_BATCHES:
        batches = above[: len(above) // size * size].reshape(-1, size).sum(axis=1)
        largest = max(largest, float(batches.var(ddof=1)) / (size * share * (1 - share)))
        size *= 2
    return largest


def discount(clustering: float) -> float:
    """What evidence is divided by."""
    return 1.0 if clustering <= INDEPENDENT else SAFETY * clustering
