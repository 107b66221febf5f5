"""Latency bounds a request must meet to count towards goodput.

Does not know which share of requests must meet them, or where the bounds came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from workloads.metadata import SloClass
from workloads.record_arrays import Mask, RecordArrays


@dataclass(frozen=True, kw_only=True, slots=True)
class SloThresholds:
    """Upper bounds in seconds; None bounds nothing."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2el_s: float | None = None

    @classmethod
    def from_class(cls, slo: SloClass) -> SloThresholds:
        """The bounds of a workload's SLO class, which are in milliseconds."""
        bounds = ((name, getattr(slo, f"{name}_ms")) for name in ("ttft", "tpot", "e2el"))
        return cls(**{f"{name}_s": ms / 1000 for name, ms in bounds if ms is not None})


GoodPredicate = Callable[[RecordArrays], Mask]  # one truth value a request
Slos = SloThresholds | Mapping[str, SloThresholds] | GoodPredicate


def meets_slos(arrays: RecordArrays, slos: Slos) -> Mask:
    """Which requests completed and met every bound; a request of one token has no TPOT to violate.

    Args:
        slos: one set of bounds for all, bounds by SLO class (a class without an entry is unbounded), or a predicate.
    """
    if isinstance(slos, SloThresholds):
        return _within(arrays, slos)
    if callable(slos):
        return np.asarray(slos(arrays), dtype=bool) & arrays.completed
    good = arrays.completed.copy()
    for name, bounds in slos.items():
        members = np.fromiter((c == name for c in arrays.slo_classes), bool, len(arrays))
        good[members] = _within(arrays, bounds)[members]
    return good


def _within(arrays: RecordArrays, bounds: SloThresholds) -> Mask:
    good = arrays.completed.copy()
    pairs = ((arrays.ttft_s, bounds.ttft_s), (arrays.tpot_s, bounds.tpot_s), (arrays.e2el_s, bounds.e2el_s))
    for values, bound in pairs:
        if bound is not None:
            good &= ~(values > bound)  # NaN, a latency the request does not define, violates nothing
    return good
