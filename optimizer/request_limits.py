"""Limits on latencies as limits that stop rules test request by request.

Does not know which limits there are, or what follows when one is exceeded.
"""

from __future__ import annotations

from typing import get_args

import numpy as np

from optimizer.measure import Measure
from workloads.record_arrays import Floats, RecordArrays
from workloads.stopping.limit import LimitedMetric, PercentileLimit


def percentile_limit(measure: Measure, limit_s: float) -> PercentileLimit | None:
    """None for what is no percentile over requests: means, gaps between tokens, rates, quality, cost."""
    if measure.statistic is None or not measure.statistic.startswith("p"):
        return None
    for metric in get_args(LimitedMetric):
        if measure.name == metric:
            return PercentileLimit(metric=metric, percentile=float(measure.statistic[1:]), limit_s=limit_s)
    return None


def limited_values(arrays: RecordArrays, metric: LimitedMetric) -> Floats:
    """Seconds of a metric, one a request in order of intended start; NaN where it has none."""
    values = {"ttft": arrays.ttft_s, "tpot": arrays.tpot_s, "e2el": arrays.e2el_s}[metric]
    return values[np.argsort(arrays.intended_start_s, kind="stable")]
