"""What a recorded load costs on a candidate: capacity and load in, dollars and replicas out.

Does not measure capacity and does not know where prices come from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optimizer.errors import OptimizerError
from optimizer.results import Cost
from workloads.estimate import Estimate
from workloads.workload import Workload

if TYPE_CHECKING:
    from optimizer.capacity import Capacity
    from search_spaces.skus import Sku


@dataclass(frozen=True, kw_only=True)
class RecordedLoad:
    """The load to be paid for: that of the whole workload, not of the window alone."""

    rate_rps: float
    tokens_per_request: float  # input plus output


def recorded_load(workload: Workload) -> RecordedLoad:
    """rate = (requests - 1) / (last arrival - first arrival); tokens per request = mean input plus output tokens.

    Raises:
        OptimizerError: fewer than two arrivals at different times, or no token counts.
    """
    name = workload.metadata.name
    arrivals = workload.numbers("arrival_s")
    arrivals = arrivals[~np.isnan(arrivals)]
    span = float(np.ptp(arrivals)) if len(arrivals) else 0.0
    if span <= 0:
        raise OptimizerError(f"workload {name!r} has no arrival times to take a rate from. Import it with arrivals")
    tokens = workload.numbers("input_tokens") + workload.numbers("output_tokens")
    if np.isnan(tokens).all():
        raise OptimizerError(f"workload {name!r} has no token counts. Import it with a tokenizer")
    return RecordedLoad(rate_rps=(len(arrivals) - 1) / span, tokens_per_request=float(np.nanmean(tokens)))


def price(capacity: Capacity, load: RecordedLoad, *, sku: Sku, sku_count: int, replicas: int | None = None) -> Cost:
    """The formulas are those of `Cost`.

    What was measured is tokens per second of the window; capacity in requests/s is that over the tokens of the
    workload's mean request, so that both sides of `utilisation` count the same requests.

    Args:
        replicas: how many hold the load; None: as many as the mean rate takes.
    """
    rate = _scaled(capacity.tokens_per_second, 1 / load.tokens_per_request)
    replicas = replicas or max(1, math.ceil(load.rate_rps / rate.value - 1e-9))
    usd_per_hour = sku.usd_per_hour * sku_count
    return Cost(
        usd_per_million_tokens=_per_million(usd_per_hour, capacity.tokens_per_second),
        usd_per_hour=usd_per_hour * replicas,
        replicas=replicas,
        utilisation=load.rate_rps / (replicas * rate.value),
        capacity_rps=rate,
        capacity_basis=capacity.basis,
        sku=sku.name,
        sku_count=sku_count,
        usd_per_sku_hour=sku.usd_per_hour,
        price_as_of=str(sku.as_of),
        price_source=sku.source,
    )


def _scaled(estimate: Estimate, factor: float) -> Estimate:
    return Estimate(
        value=estimate.value * factor,
        low=estimate.low * factor,
        high=estimate.high * factor,
        num_samples=estimate.num_samples,
    )


def _per_million(usd_per_hour: float, tokens_per_second: Estimate) -> Estimate:
    """More capacity is cheaper, so the interval's ends change places."""

    def usd(rate: float) -> float:
        return usd_per_hour / (rate * 3600) * 1e6

    return Estimate(
        value=usd(tokens_per_second.value),
        low=usd(tokens_per_second.high),
        high=usd(tokens_per_second.low),
        num_samples=tokens_per_second.num_samples,
    )
