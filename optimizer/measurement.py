"""`measure`: replay a window of traffic against one running server and say what happened, with intervals.

Does not launch, does not know objectives, and never retries a failed engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

from engine.backend import EngineStatistics
from optimizer.client import Client, Report, silent
from optimizer.fidelity import TrialWindow
from optimizer.slo import Slo
from workloads.errors import UndefinedMetricError
from workloads.estimate import Estimate, block_bootstrap
from workloads.metrics import ServingMetrics, summarize
from workloads.records import RequestRecord
from workloads.replay.replayer import WARMUP_CONCURRENCY
from workloads.replay.result import ReplayResult
from workloads.slo import SloThresholds
from workloads.statistic import statistic_named
from workloads.stopping.first_to_stop import FirstToStop
from workloads.stopping.limit import PercentileLimit

ESTIMATED = (
    *(f"{statistic}_{latency}_ms" for latency in ("e2el", "ttft", "tpot") for statistic in ("p50", "p95")),
    "mean_itl_ms",
    "request_throughput",
    "output_throughput",
    "request_goodput",
    "slo_attainment",
)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One replay; `void_reason` is empty unless the client was too late for its latencies to mean anything.

    With a `stop_reason` it is a part of one, which measures nothing: `flat` and `estimates` are empty.
    """

    records: tuple[RequestRecord, ...]
    metrics: ServingMetrics
    flat: dict[str, float]  # `metrics.flat()` plus acceptance_length and prefix_cache_hit_rate where they exist
    estimates: dict[str, Estimate]  # same names as `flat`, with intervals
    statistics: EngineStatistics  # differences over the replay
    served_models: tuple[str, ...] = ()  # names that the server answers to
    notes: tuple[str, ...] = ()
    void_reason: str = ""
    stop_reason: str = ""  # why a stop rule ended it
    exceeded: tuple[PercentileLimit, ...] = ()  # what the whole replay would have exceeded


def measure(
    client: Client,
    window: TrialWindow,
    *,
    slos: tuple[Slo, ...] = (),
    wanted: Iterable[str] = (),
    make_rule: Callable[[], FirstToStop | None] = lambda: None,
    report: Report = silent,
) -> Measurement:
    """Warm up, reset the prefix cache, replay at the recorded arrivals with pinned lengths; retried once when void.

    Args:
        wanted: flat names of metrics to give with intervals besides the usual ones and those of `slos`.
        make_rule: what may end a replay early, made anew for each.

    Raises:
        EngineError: the engine died, hung or answered nothing.
    """
    asked = (*wanted, *(slo.flat_name for slo in slos if slo.measure.source == "replay"))
    measurement = _measure_once(client, window, slos, asked, make_rule(), report)
    if measurement.void_reason:
        report("replaying again: the load generator was late")
        measurement = _measure_once(client, window, slos, asked, make_rule(), report)
    return measurement


def _measure_once(
    client: Client,
    window: TrialWindow,
    slos: tuple[Slo, ...],
    asked: tuple[str, ...],
    rule: FirstToStop | None,
    report: Report,
) -> Measurement:
    result, statistics = _replay(client, window, rule, report)
    if result.ended_by == "stop_rule" and rule is not None:
        return _part(result, statistics, rule, window.notes)
    return _summary(result, statistics, slos, asked, window.notes)


def warm_up(client: Client, window: TrialWindow, report: Report = silent) -> None:
    """A replay of its own, so that a hang is seen here too; the prefix cache is empty afterwards."""
    report("warming up")
    if len(window.warmup):
        client.send(window.warmup, mode="concurrency", concurrency=WARMUP_CONCURRENCY)
    client.server.reset_prefix_cache()


def _replay(
    client: Client, window: TrialWindow, rule: FirstToStop | None, report: Report
) -> tuple[ReplayResult, EngineStatistics]:
    num_ended, total = 0, len(window.window)

    def count(_: RequestRecord) -> None:
        nonlocal num_ended
        num_ended += 1
        report(f"replaying {num_ended}/{total}")

    warm_up(client, window, report)
    before = client.server.statistics()
    result = client.send(window.window, on_record=count, stop_rule=rule)
    return result, statistics_difference(client.server.statistics(), before)


def statistics_difference(after: EngineStatistics, before: EngineStatistics) -> EngineStatistics:
    """Counter by counter; per-position counts as far as both go. `extra` is the later reading."""
    names = [f.name for f in fields(EngineStatistics) if f.name not in ("extra", "accepted_tokens_per_position")]
    counts = {name: getattr(after, name) - getattr(before, name) for name in names}
    earlier = (*before.accepted_tokens_per_position, *[0] * len(after.accepted_tokens_per_position))
    positions = tuple(a - b for a, b in zip(after.accepted_tokens_per_position, earlier, strict=False))
    return EngineStatistics(**counts, accepted_tokens_per_position=positions, extra=after.extra)


def thresholds(slos: Iterable[Slo]) -> SloThresholds | None:
    """What one request must meet to be good: the tightest upper limit on each latency, whatever its statistic."""
    bounds: dict[str, float] = {}
    for slo in slos:
        if slo.metric in ("ttft", "tpot", "e2el") and slo.is_upper:
            name = f"{slo.metric}_s"
            bounds[name] = min(slo.limit, bounds.get(name, slo.limit))
    return SloThresholds(**bounds) if bounds else None


def _part(result: ReplayResult, statistics: EngineStatistics, rule: FirstToStop, notes: tuple[str, ...]) -> Measurement:
    """What a stopped replay tells: that limits are exceeded, and no numbers."""
    return Measurement(
        records=result.records,
        metrics=summarize(result.records),
        flat={},
        estimates={},
        statistics=statistics,
        served_models=result.served_models,
        notes=(*notes, *result.notes),
        void_reason=result.void_reason or "",
        stop_reason=result.stop_reason or "",
        exceeded=rule.exceeded,
    )


def _summary(
    result: ReplayResult,
    statistics: EngineStatistics,
    slos: tuple[Slo, ...],
    wanted: Iterable[str],
    notes: tuple[str, ...],
) -> Measurement:
    bounds = thresholds(slos)
    metrics = summarize(result.records, bounds)
    asked = tuple(dict.fromkeys((*ESTIMATED, *wanted)))
    return Measurement(
        records=result.records,
        metrics=metrics,
        flat=metrics.flat() | defined_metrics(metrics, asked) | _of_engine(statistics),
        estimates=dict(_estimates(metrics, bounds, asked)),
        statistics=statistics,
        served_models=result.served_models,
        notes=(*notes, *result.notes, *metrics.notes()),
        void_reason=result.void_reason or "",
    )


def defined_metrics(metrics: ServingMetrics, names: Iterable[str]) -> dict[str, float]:
    """Also percentiles too thin to be shown unasked."""
    found = {}
    for name in names:
        try:
            found[name] = metrics.value(name)
        except UndefinedMetricError:
            continue
    return found


def _of_engine(statistics: EngineStatistics) -> dict[str, float]:
    found = {
        "acceptance_length": statistics.acceptance_length,
        "prefix_cache_hit_rate": statistics.prefix_cache_hit_rate,
        "num_preemptions": float(statistics.num_preemptions),
    }
    return {name: value for name, value in found.items() if value is not None}


def _estimates(
    metrics: ServingMetrics, bounds: SloThresholds | None, names: Iterable[str]
) -> Iterable[tuple[str, Estimate]]:
    for name in names:
        try:
            yield name, block_bootstrap(metrics.arrays, statistic_named(name, bounds))
        except UndefinedMetricError:
            continue
