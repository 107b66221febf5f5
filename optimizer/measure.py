"""`Measure`: a number that an objective or an SLO can be about, and where a trial has it.

Does not know limits, weights, or how the number was measured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from optimizer.errors import OptimizerError
from optimizer.results import Cost, QualityScore, TrialResult
from workloads.estimate import Estimate

LATENCIES = {
    "ttft": "time to first token",
    "tpot": "time per output token",
    "itl": "gap between tokens",
    "e2el": "end-to-end latency",
    "schedule_lag": "schedule lag",
}
STATISTICS = "mean, median, std or a percentile such as p95"
Source = Literal["replay", "quality", "cost"]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """`name` and, for latencies, `statistic`, as in `ttft:p95`; read in seconds, dollars or the metric's own unit."""

    name: str
    statistic: str | None = None
    source: Source = "replay"
    field: str  # flat metric name, or the field of QualityScore or Cost
    higher_is_better: bool = False
    words: str

    @property
    def is_latency(self) -> bool:
        return self.name in LATENCIES

    def __str__(self) -> str:
        return f"{self.name}:{self.statistic}" if self.statistic else self.name

    def read(
        self,
        metrics: Mapping[str, float],
        estimates: Mapping[str, Estimate],
        quality: QualityScore | None,
        cost: Cost | None,
    ) -> Estimate:
        """The number with its interval; one measured without an interval is its own interval.

        Raises:
            OptimizerError: this trial does not have it.
        """
        holder = {"quality": quality, "cost": cost}.get(self.source)
        found = self._in_replay(metrics, estimates) if self.source == "replay" else getattr(holder, self.field, None)
        if found is None:
            raise OptimizerError(f"{self} was not measured. Use another metric, or a workload that defines it")
        estimate = found if isinstance(found, Estimate) else _point(found)
        return _in_seconds(estimate) if self.is_latency else estimate

    def read_trial(self, trial: TrialResult) -> Estimate:
        """`read` from a trial's parts."""
        return self.read(trial.metrics, trial.estimates, trial.quality, trial.cost)

    def at_least(self, trial: TrialResult) -> float | None:
        """What a stopped trial would at least have measured, in seconds for latencies; None where nothing is known."""
        bound = trial.bounds.get(self.field)
        return bound / 1000 if bound is not None and self.is_latency else bound

    def _in_replay(self, metrics: Mapping[str, float], estimates: Mapping[str, Estimate]) -> Estimate | float | None:
        names = (self.field, f"median_{self.name}_ms") if self.statistic == "p50" else (self.field,)
        for values in (estimates, metrics):
            for name in names:
                if name in values:
                    return values[name]
        return None


def _point(value: float) -> Estimate:
    return Estimate(value=value, low=value, high=value, num_samples=0)


def _in_seconds(ms: Estimate) -> Estimate:
    parts = {"value": ms.value / 1000, "low": ms.low / 1000, "high": ms.high / 1000}
    return Estimate(**parts, num_samples=ms.num_samples)


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """Every part times a positive factor."""
    return Estimate(
        value=estimate.value * factor,
        low=estimate.low * factor,
        high=estimate.high * factor,
        num_samples=estimate.num_samples,
    )


def _plain(name: str, field: str, words: str, *, source: Source = "replay", higher: bool = False) -> Measure:
    return Measure(name=name, field=field, words=words, source=source, higher_is_better=higher)


_PLAIN = (
    _plain("quality", "quality", "quality", source="quality", higher=True),
    _plain("kl", "kl_nats", "KL divergence in nats per token", source="quality"),
    _plain("top1_agreement", "top1_agreement", "top-1 agreement", source="quality", higher=True),
    _plain("checks_score", "checks_score", "score of the checks", source="quality", higher=True),
    _plain("cost", "usd_per_million_tokens", "dollars per million tokens", source="cost"),
    _plain("usd_per_hour", "usd_per_hour", "dollars per hour", source="cost"),
    _plain("replicas", "replicas", "replicas", source="cost"),
    _plain("throughput", "capacity_rps", "requests per second one replica can hold", source="cost", higher=True),
    _plain("goodput", "request_goodput", "requests per second that meet every SLO", higher=True),
    _plain("slo_attainment", "slo_attainment", "share of requests that meet every SLO", higher=True),
    _plain("error_rate", "error_rate", "share of requests that failed"),
    _plain("request_throughput", "request_throughput", "requests per second", higher=True),
    _plain("output_throughput", "output_throughput", "output tokens per second", higher=True),
    _plain("total_token_throughput", "total_token_throughput", "tokens per second", higher=True),
    _plain("acceptance_length", "acceptance_length", "tokens per target step", higher=True),
    _plain("prefix_cache_hit_rate", "prefix_cache_hit_rate", "share of prompt tokens found in the cache", higher=True),
)
MEASURES = {measure.name: measure for measure in _PLAIN} | {
    measure.field: measure for measure in _PLAIN if measure.source == "replay"
}
_FLAT_LATENCY = re.compile(rf"(?P<statistic>mean|median|std|p[\d.]+)_(?P<name>{'|'.join(LATENCIES)})_ms")


def measure_named(name: str, statistic: str | None = None) -> Measure:
    """`("ttft", "p95")`, `("p95_ttft_ms", None)`, `("cost", None)`.

    Raises:
        OptimizerError: no such measure, with the closest one; a latency without a statistic, or another with one.
    """
    flat = _FLAT_LATENCY.fullmatch(name)
    if flat and statistic is None:
        return _latency(flat["name"], flat["statistic"])
    if name in LATENCIES:
        if statistic is None:
            raise OptimizerError(f"say which statistic of {name}: {STATISTICS}, as in {name}:p95")
        return _latency(name, statistic)
    if name not in MEASURES:
        raise OptimizerError(f"there is no metric {name!r}. {closest(name, [*LATENCIES, *MEASURES])}")
    if statistic is not None:
        raise OptimizerError(f"{name} has no statistics. Write it without :{statistic}")
    return MEASURES[name]


def closest(name: str, known: list[str]) -> str:
    """`Did you mean 'x'?` or what is known."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"Did you mean {close[0]!r}?" if close else "Known are: " + ", ".join(known)


def _latency(name: str, statistic: str) -> Measure:
    statistic = _normal_statistic(statistic)
    field, words = f"{statistic}_{name}_ms", f"{statistic} {LATENCIES[name]}"
    return Measure(name=name, statistic=statistic, field=field, words=words)


def _normal_statistic(text: str) -> str:
    if text in ("mean", "std"):
        return text
    if text == "median":
        return "p50"
    match = re.fullmatch(r"p(\d{1,3}(?:\.\d{1,6})?)", text)
    if match is None or not 0 < float(match[1]) < 100:
        raise OptimizerError(f"{text!r} is no statistic. Write {STATISTICS}")
    return f"p{float(match[1]):g}"
