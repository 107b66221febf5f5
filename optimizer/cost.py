"""What a recorded load costs on a candidate: capacity and load in, dollars and replicas out.

Does not measure capacity and does not know where prices come from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.config import Hardware
from optimizer.errors import OptimizerError
from optimizer.results import Cost
from workloads.estimate import Estimate
from workloads.workload import Workload

if TYPE_CHECKING:
    from optimizer.capacity import Capacity
    from search_spaces.skus import Sku


@dataclass(frozen=True, kw_only=True)
class RecordedLoad:
    """The load to be paid for, over the whole workload and not the window alone."""

    rate_rps: float
    tokens_per_request: float  # input plus output


def recorded_load(workload: Workload) -> RecordedLoad:
    """requests / span of the arrivals; tokens as recorded.

    Raises:
        OptimizerError: a workload without arrivals or lengths.
    """
    raise OptimizerError("not written yet")


def price(capacity: Capacity, load: RecordedLoad, *, sku: Sku, sku_count: int) -> Cost:
    """The formulas are those of `Cost`; more capacity is cheaper, so its interval's ends change places."""
    raise NotImplementedError(math.inf, Estimate, Hardware)
