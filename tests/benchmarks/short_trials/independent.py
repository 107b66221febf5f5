"""P9's second half: requests without a queue, 1% of which may be above a limit and 5% of which are.

Does not know traffic.
"""

from __future__ import annotations

import numpy as np

from workloads.records import RequestRecord
from workloads.stopping.limit import PercentileLimit
from workloads.stopping.limit_test import ALPHA, LimitTest


def independent(num_runs: int) -> dict[str, float]:
    """Requests to reject a limit of 1% that 5% exceed."""
    limit = PercentileLimit(metric="e2el", percentile=99, limit_s=-float(np.log(0.05)))
    needed = []
    for draws in np.random.default_rng(0).exponential(1.0, (num_runs, 1000)):
        test = LimitTest(limit, num_requests=10**9, alpha=ALPHA, clustering=1.0)
        for i, latency in enumerate(draws.tolist()):
            end = i + latency
            test.update(1e9, [_one(i, end)], [])
            if test.exceeded:
                break
        needed.append(i + 1)
    boot = np.random.default_rng(1).choice(needed, (1000, num_runs))
    low, high = np.quantile(np.median(boot, axis=1), [0.025, 0.975])
    return {
        "n": num_runs,
        "median": float(np.median(needed)),
        "low": float(low),
        "high": float(high),
        "mean": float(np.mean(needed)),
    }


def _one(number: int, end_s: float) -> RequestRecord:
    return RequestRecord(
        request_id=str(number),
        intended_start_s=float(number),
        sent_s=float(number),
        first_token_s=end_s,
        token_times_s=(end_s,),
        end_s=end_s,
        input_tokens=1,
        output_tokens=1,
        status="ok",
    )
