"""One number of a trial by its flat name, with the interval where there is one.

Does not know which numbers a report tells.
"""

from __future__ import annotations

import math
import re

from optimizer.results import SloOutcome, TrialResult, TrialState
from reports.numbers import share, three_digits, with_interval
from reports.table import NOTHING, Cell
from reports.words import metric_words
from workloads.estimate import Estimate

LATENCY = "p95_e2el_ms"
COST = "usd_per_million_tokens"
QUALITY = "quality"
_LATENCY_SLO = re.compile(r"\b(?:(?:p[\d.]+|mean|median|std)_)?(ttft|tpot|itl|e2el|schedule_lag)(_ms)?\b")


def number_of(trial: TrialResult, metric: str) -> Estimate | None:
    """A bare number is an Estimate whose ends are its value; None when the trial does not have it."""
    if metric == QUALITY:
        return trial.quality.quality if trial.quality else None
    if metric == COST:
        return trial.cost.usd_per_million_tokens if trial.cost else None
    if metric in trial.estimates:
        return trial.estimates[metric]
    value = trial.metrics.get(metric)
    return None if value is None or not math.isfinite(value) else bare(value, num_requests(trial))


def bare(value: float, num_samples: int = 0) -> Estimate:
    """A number without an interval."""
    return Estimate(value=value, low=value, high=value, num_samples=num_samples)


def num_requests(trial: TrialResult) -> int:
    """Completed requests behind the trial's latencies; 0 when unknown."""
    return int(trial.metrics.get("completed", 0))


def has_placeholder(trial: TrialResult) -> bool:
    """Its price was made up by us: ratios of dollars mean something, dollars do not."""
    return trial.cost is not None and "placeholder" in trial.cost.price_source


def is_usable(trial: TrialResult) -> bool:
    """Its measurement means something: complete and not void."""
    return trial.state is TrialState.COMPLETE and not trial.reason


def number_cell(trial: TrialResult, metric: str) -> Cell:
    """The number with its interval but without its unit, which the column's head names; sorted by value."""
    estimate = number_of(trial, metric)
    if estimate is None:
        return NOTHING
    text = with_interval(estimate, style=metric_words(metric).style)
    return Cell(text=text, sort=estimate.value, title=_samples(estimate))


def estimate_cell(estimate: Estimate, metric: str) -> Cell:
    words = metric_words(metric)
    text = money(estimate) if words.unit == "USD" else with_interval(estimate, style=words.style, unit=words.unit)
    return Cell(text=text, sort=estimate.value, title=_samples(estimate))


def _samples(estimate: Estimate) -> str:
    return f"from {estimate.num_samples:,} samples" if estimate.num_samples else ""


def money(estimate: Estimate) -> str:
    """`$0.0367 [0.0349, 0.0389]`."""
    return f"${with_interval(estimate)}"


def slo_value(outcome: SloOutcome) -> str:
    """The measured value in the unit of its SLO: milliseconds for latencies."""
    if is_latency_slo(outcome.slo):
        return f"{three_digits(outcome.value * 1000)} ms"
    return share(outcome.value) if outcome.slo.startswith((QUALITY, "top1", "checks")) else three_digits(outcome.value)


def is_latency_slo(slo: str) -> bool:
    """Whether an SLO's numbers are seconds."""
    return _LATENCY_SLO.match(slo.strip()) is not None


def is_settled(metric: str, num_samples: int) -> bool:
    """Whether so many requests settle this percentile: p99 and beyond want 5 / (1 - p), 500 for p99."""
    match = re.match(r"p(\d+(?:\.\d+)?)_", metric)
    percentile = float(match[1]) if match else 50.0
    return percentile < 99 or num_samples >= 5 / (1 - min(percentile, 99.99) / 100) - 1e-6
