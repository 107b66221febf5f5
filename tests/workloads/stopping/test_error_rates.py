"""False stops under continuous looks: independent requests, one-server queues, bursts; at the limit, the worst case."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from queue_cases import bursty, poisson, replayed, sojourns
from scipy.stats import binom

from workloads.record_arrays import Floats
from workloads.stopping.clustering import clustering_of
from workloads.stopping.evidence import log_evidence
from workloads.stopping.limit import PercentileLimit
from workloads.stopping.limit_test import LimitTest

ALPHA = 0.05
NUM_REQUESTS = 3000
NUM_RUNS = 40
AT_MOST = binom.ppf(0.999, NUM_RUNS, ALPHA)  # false stops of a test that errs in 5% of runs: 7 of 40


class Stops(NamedTuple):
    """Requests counted when a test first answered without certainty; None: never."""

    exceeded: int | None
    met: int | None


def stops(latencies: Floats, limit_s: float, *, share: float, clustering: float, look_every: int = 1) -> Stops:
    """Both answers of one test, looked at all the time."""
    limit = PercentileLimit(metric="e2el", percentile=100 * (1 - share), limit_s=limit_s)
    test = LimitTest(limit, num_requests=10**9, alpha=ALPHA, clustering=clustering)
    records = replayed(np.arange(len(latencies), dtype=float), latencies)
    met = None
    for end in range(look_every, len(records) + 1, look_every):
        test.update(1e9, records[end - look_every : end], [])
        met = end if met is None and test.met() else met
        if test.exceeded:
            return Stops(end, met)
    return Stops(None, met)


def just_at_the_limit(latencies: Floats, share: float) -> float:
    return float(np.quantile(latencies, 1 - share))


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5])
def test_independent_requests_at_the_limit_are_seldom_stopped(share: float) -> None:
    draws = np.random.default_rng(7).exponential(1.0, (NUM_RUNS, 1000))
    found = [stops(run, -float(np.log(share)), share=share, clustering=1.0) for run in draws]
    assert sum(stop.exceeded is not None for stop in found) <= AT_MOST
    assert sum(stop.met is not None for stop in found) <= AT_MOST


def test_five_violations_in_a_hundred_reject_a_limit_of_one_in_a_median_of_75_requests() -> None:
    draws = np.random.default_rng(11).exponential(1.0, (200, 600))
    needed = [stops(run, -float(np.log(0.05)), share=0.01, clustering=1.0).exceeded for run in draws]
    assert np.median([number or 1e9 for number in needed]) <= 75  # Wald's expected number is 73


def queue_runs(
    arrivals: Callable[[np.random.Generator, int], Floats], *, reference_load: float, load: float, share: float
) -> list[tuple[Floats, float]]:
    """Latencies of a candidate and the clustering of a reference: same arrivals, similar lengths, another load."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(NUM_RUNS):
        times, lengths = arrivals(rng, NUM_REQUESTS), rng.exponential(1.0, NUM_REQUESTS)
        rate = NUM_REQUESTS / times[-1]
        reference = sojourns(times, lengths * reference_load / rate)
        candidate = sojourns(times, lengths * rng.lognormal(0, 0.2, NUM_REQUESTS) * load / rate)
        found.append((candidate, clustering_of(reference, share)))
    return found


def test_a_test_that_takes_a_queues_requests_for_independent_stops_too_often() -> None:
    runs = queue_runs(poisson, reference_load=0.6, load=0.7, share=0.05)
    naive = [_naive_stop(latencies, 0.05) for latencies, _ in runs]
    assert sum(naive) > 2 * AT_MOST


def _naive_stop(latencies: Floats, share: float) -> bool:
    """As `LimitTest` without any look at clustering."""
    above = np.cumsum(latencies > just_at_the_limit(latencies, share))
    counts = enumerate(above.tolist(), start=1)
    return any(log_evidence(k, n, share=share, direction="more") >= np.log(1 / ALPHA) for n, k in counts)


@pytest.mark.parametrize("arrivals", [poisson, bursty])
@pytest.mark.parametrize("share", [0.01, 0.05])
def test_queues_at_the_limit_are_seldom_stopped_although_their_requests_are_correlated(
    arrivals: Callable[[np.random.Generator, int], Floats], share: float
) -> None:
    runs = queue_runs(arrivals, reference_load=0.3, load=0.9, share=share)
    found = [
        stops(latencies, just_at_the_limit(latencies, share), share=share, clustering=clustering, look_every=5)
        for latencies, clustering in runs
    ]
    assert sum(stop.exceeded is not None for stop in found) <= AT_MOST
    assert sum(stop.met is not None for stop in found) <= AT_MOST


def test_clustering_is_one_for_independent_requests_and_large_in_a_queue() -> None:
    rng = np.random.default_rng(3)
    alone = [clustering_of(rng.exponential(1.0, NUM_REQUESTS), 0.05) for _ in range(50)]
    queue = [clustering for _, clustering in queue_runs(poisson, reference_load=0.6, load=0.6, share=0.05)]
    assert np.median(alone) < 1.3
    assert np.median(queue) > 5
