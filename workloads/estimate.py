"""How sure a measured number is: block bootstrap intervals of statistics of request records.

Does not know what the number decides. Requests of one run are correlated through the queue they share, so whole busy
periods are resampled: they are the queue's own regeneration points. How honest that is, measured on a half-loaded
single-server queue: 95% intervals of a mean E2EL covered the long-run truth in 81% of runs of 200 requests and in 91%
of runs of 1,000; of a p95 in 71% and 90%. Long busy periods are rare and short runs have not seen them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from workloads.errors import UndefinedMetricError, WorkloadError
from workloads.record_arrays import Floats, Ints, RecordArrays, as_arrays
from workloads.records import RequestRecord
from workloads.statistic import Statistic

MIN_BUSY_PERIODS = 8
_MAX_CELLS = 8_000_000  # of one (resamples x requests) matrix: bounds memory at about 64 MiB

Records = Sequence[RequestRecord] | RecordArrays
RecordStatistic = Statistic | Callable[[RecordArrays], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A value and the interval it lies in at the confidence asked for; `num_samples` requests stand behind it."""

    value: float
    low: float
    high: float
    num_samples: int


def block_bootstrap(
    records: Records,
    statistic: RecordStatistic,
    *,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """A statistic of one run with its bootstrap interval over blocks of requests (BCa: Efron 1987).

    Raises:
        UndefinedMetricError: the records do not define the statistic.
    """
    arrays = as_arrays(records)
    rng = np.random.default_rng(seed)
    blocks = blocks_of(arrays)
    draws = _resampled(arrays, statistic, blocks, _multiplicities(blocks, num_resamples, rng))
    left_out = _resampled(arrays, statistic, blocks, _leave_one_group_out(blocks))
    value = _point(arrays, statistic)
    levels = _bca_levels(value, draws, left_out, confidence)
    return _interval(value, draws, levels, len(arrays))


def ratio_bootstrap(
    records_a_runs: Sequence[Records],
    records_b_runs: Sequence[Records],
    statistic: RecordStatistic,
    *,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Median over interleaved pairs of statistic(A run i) / statistic(B run i), with a two-level bootstrap interval.

    Pairs are resampled, and inside each pair blocks of requests: the same requests on both sides when A and B
    replayed the same ones, so that what the traffic does to both cancels.

    Raises:
        WorkloadError: no pairs, or a different number of runs.
        UndefinedMetricError: a run does not define the statistic, or it is 0 in a B run.
    """
    if not records_a_runs or len(records_a_runs) != len(records_b_runs):
        what = f"{len(records_a_runs)} runs of A and {len(records_b_runs)} of B make no pairs"
        raise WorkloadError(what, fix="Measure A B B A")
    rng = np.random.default_rng(seed)
    pairs = [(as_arrays(a), as_arrays(b)) for a, b in zip(records_a_runs, records_b_runs, strict=True)]
    points = [_ratio(np.array(_point(a, statistic)), np.array(_point(b, statistic))) for a, b in pairs]
    draws = np.stack([_ratio_draws(a, b, statistic, num_resamples, rng) for a, b in pairs])
    chosen = rng.integers(len(pairs), size=(num_resamples, len(pairs)))
    inner = rng.integers(num_resamples, size=chosen.shape)
    medians = np.median(draws[chosen, inner], axis=1)
    return _interval(float(np.median(points)), medians, _levels(confidence), sum(len(a) + len(b) for a, b in pairs))


def _ratio_draws(
    a: RecordArrays, b: RecordArrays, statistic: RecordStatistic, num_resamples: int, rng: np.random.Generator
) -> Floats:
    blocks_a = blocks_of(a)
    draws_a = _multiplicities(blocks_a, num_resamples, rng)
    if set(a.request_ids) == set(b.request_ids) and len(a) == len(b):
        block_of_id = dict(zip(a.request_ids, blocks_a.tolist(), strict=True))
        blocks_b = np.array([block_of_id[request] for request in b.request_ids], np.int64)
        draws_b = draws_a
    else:
        blocks_b = blocks_of(b)
        draws_b = _multiplicities(blocks_b, num_resamples, rng)
    return _ratio(_resampled(a, statistic, blocks_a, draws_a), _resampled(b, statistic, blocks_b, draws_b))


def _ratio(a: Floats, b: Floats) -> Floats:
    if np.any(b == 0):
        raise UndefinedMetricError("a ratio over 0", fix="Choose a statistic that is positive in every run")
    return np.asarray(a / b)


def blocks_of(arrays: RecordArrays) -> Ints:
    """Block number of each request: its busy period, or ≈ √n consecutive arrivals where periods are too few."""
    periods = busy_periods(arrays)
    if len(periods) and periods.max() + 1 >= MIN_BUSY_PERIODS:
        return periods
    size = max(1, round(np.sqrt(len(arrays))))
    rank = np.empty(len(arrays), np.int64)
    rank[np.argsort(arrays.intended_start_s, kind="stable")] = np.arange(len(arrays))
    return np.asarray(rank // size, np.int64)


def busy_periods(arrays: RecordArrays) -> Ints:
    """Number of the busy period each request belongs to: a maximal interval with at least one request in flight."""
    order = np.argsort(arrays.intended_start_s, kind="stable")
    latest_end = np.maximum.accumulate(arrays.end_s[order])
    starts = np.zeros(len(arrays), bool)
    starts[1:] = arrays.intended_start_s[order][1:] > latest_end[:-1]
    periods = np.empty(len(arrays), np.int64)
    periods[order] = np.cumsum(starts)
    return periods


def _multiplicities(blocks: Ints, num_resamples: int, rng: np.random.Generator) -> Ints:
    """(num_resamples, num_blocks): how often each block is drawn when as many are drawn as there are."""
    num_blocks = int(blocks.max(initial=0)) + 1
    chances = np.full(num_blocks, 1 / num_blocks)
    return np.asarray(rng.multinomial(num_blocks, chances, size=num_resamples), np.int64)


def _point(arrays: RecordArrays, statistic: RecordStatistic) -> float:
    if isinstance(statistic, Statistic):
        return float(statistic.resampled(arrays, np.ones((1, len(arrays)), np.int64))[0])
    return statistic(arrays)


def _resampled(arrays: RecordArrays, statistic: RecordStatistic, blocks: Ints, multiplicities: Ints) -> Floats:
    if isinstance(statistic, Statistic):
        step = max(1, _MAX_CELLS // max(1, len(arrays)))
        parts = (multiplicities[i : i + step, blocks] for i in range(0, len(multiplicities), step))
        return np.concatenate([statistic.resampled(arrays, part) for part in parts])
    rows = np.arange(len(arrays))
    values = [_or_nan(statistic, arrays.take(np.repeat(rows, counts[blocks]))) for counts in multiplicities]
    return np.array(values)


def _or_nan(statistic: Callable[[RecordArrays], float], arrays: RecordArrays) -> float:
    try:
        return statistic(arrays)
    except UndefinedMetricError:
        return np.nan


def _leave_one_group_out(blocks: Ints) -> Ints:
    """(num_groups, num_blocks): every block once but those of one group; at most 100 groups of neighbours."""
    num_blocks = int(blocks.max(initial=0)) + 1
    groups = np.arange(num_blocks) * min(num_blocks, 100) // num_blocks
    return np.asarray(groups[None, :] != np.arange(groups[-1] + 1)[:, None], np.int64)


def _levels(confidence: float) -> Floats:
    return np.array([(1 - confidence) / 2, (1 + confidence) / 2])


def _bca_levels(value: float, draws: Floats, left_out: Floats, confidence: float) -> Floats:
    """Quantile levels corrected for the draws' median bias and skew (Efron 1987, equations 6.6 and 6.7)."""
    draws, left_out = draws[~np.isnan(draws)], left_out[~np.isnan(left_out)]
    if len(draws) < 2 or len(left_out) < 2:
        return _levels(confidence)
    below = (np.sum(draws < value) + 0.5 * np.sum(draws == value)) / len(draws)
    bias = ndtri(np.clip(below, 1 / len(draws), 1 - 1 / len(draws)))
    influence = left_out.mean() - left_out
    spread = float(np.sum(influence**2))
    skew = float(np.sum(influence**3)) / (6 * spread**1.5) if spread > 0 else 0.0
    normal = bias + ndtri(_levels(confidence))
    return np.asarray(ndtr(bias + normal / np.maximum(1 - skew * normal, 0.1)), np.float64)


def _interval(value: float, draws: Floats, levels: Floats, num_samples: int) -> Estimate:
    """The draws' quantiles at these levels; resamples that do not define the statistic (NaN) say nothing."""
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        raise UndefinedMetricError("no resample defines the statistic", fix="Measure more requests")
    low, high = np.quantile(draws, levels)
    return Estimate(value=value, low=float(low), high=float(high), num_samples=num_samples)
