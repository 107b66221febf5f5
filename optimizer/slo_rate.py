"""The highest speed of a window's traffic at which latency SLOs hold: a bisection over few short replays.

Does not know prices, or what speed the engine saturates at: it is given the bracket.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from typing import NamedTuple

import numpy as np

from optimizer.client import Client, Report
from optimizer.fidelity import TrialWindow, part_of
from optimizer.measurement import thresholds, warm_up
from optimizer.request_limits import limited_values, percentile_limit
from optimizer.slo import Slo, evaluate
from workloads.errors import UndefinedMetricError
from workloads.metrics import ServingMetrics, summarize
from workloads.record_arrays import RecordArrays
from workloads.stopping.clustering import clustering_of
from workloads.stopping.settled import Settled
from workloads.workload import Workload

CLOSE_ENOUGH = 1.1  # ratio of the bracket's ends
SLOWEST = 0.125


class Bracket(NamedTuple):
    """The SLOs held at `held` (None: at no speed that was tried), and not at `broken`."""

    held: float | None
    broken: float


def bisect(
    holds: Callable[[float], bool], bracket: Bracket, *, seconds_of: Callable[[float], float], budget_s: float
) -> Bracket:
    """Narrow the bracket by geometric halves while the next try fits into what is left of the budget."""
    start = time.monotonic()
    while not _is_narrow(bracket):
        speed = bracket.broken / 2 if bracket.held is None else (bracket.held * bracket.broken) ** 0.5
        if time.monotonic() - start + seconds_of(speed) > budget_s:
            break
        bracket = Bracket(speed, bracket.broken) if holds(speed) else Bracket(bracket.held, speed)
    return bracket


def _is_narrow(bracket: Bracket) -> bool:
    if bracket.held is None:
        return bracket.broken <= SLOWEST
    return bracket.broken / bracket.held <= CLOSE_ENOUGH


def bisect_speed(
    client: Client,
    window: TrialWindow,
    bracket: Bracket,
    *,
    slos: tuple[Slo, ...],
    measured: RecordArrays,
    budget_s: float,
    report: Report,
) -> Bracket:
    """Speeds above 1 replay the window faster; below 1 they replay a share of its sessions, as one of more replicas.

    Whether the SLOs hold is all that a replay is asked here, so it ends as soon as that is settled.

    Args:
        measured: a replay of the window at its recorded speed, which tells how requests above a limit cluster.

    Raises:
        EngineError: the engine died or hung.
    """

    def holds(speed: float) -> bool:
        report(f"probing {speed:.2g}x the recorded rate")
        held, is_void = once(speed)
        if is_void and not held:  # which may be the client's fault; a late client makes no latency shorter
            held, _ = once(speed)
        return held

    def once(speed: float) -> tuple[bool, bool]:
        warm_up(client, window)
        part = thinned(window.window, min(1.0, speed))
        rule = deciding_rule(slos, measured, num_requests=len(part))
        result = client.send(part, speedup=max(1.0, speed), stop_rule=rule)
        is_void = result.void_reason is not None
        if rule is not None and rule.decision is not None:
            return rule.decision == "met", is_void
        return latency_slos_hold(summarize(result.records, thresholds(slos)), slos), is_void

    def seconds_of(speed: float) -> float:
        return window.span_s / max(1.0, speed) + 1.0

    return bisect(holds, bracket, seconds_of=seconds_of, budget_s=budget_s)


def deciding_rule(slos: tuple[Slo, ...], measured: RecordArrays, *, num_requests: int) -> Settled | None:
    """What ends a replay once it is decided whether it keeps every SLO; None where one is no percentile of requests."""
    limits = {slo.text: percentile_limit(slo.measure, slo.limit) for slo in slos}
    known = {name: limit for name, limit in limits.items() if limit is not None}
    if len(known) < len(limits):
        return None
    clustering = {
        name: clustering_of(limited_values(measured, limit.metric), limit.share) for name, limit in known.items()
    }
    return Settled(known, num_requests=num_requests, clustering=clustering)


def latency_slos(slos: tuple[Slo, ...]) -> tuple[Slo, ...]:
    """The upper limits on latencies: what a higher rate breaks."""
    return tuple(slo for slo in slos if slo.measure.is_latency and slo.is_upper)


def latency_slos_hold(metrics: ServingMetrics, slos: tuple[Slo, ...]) -> bool:
    """Whether every latency SLO is met by value; one that the records do not define is not."""
    return worst_violation(metrics, slos) <= 0


def worst_violation(metrics: ServingMetrics, slos: tuple[Slo, ...]) -> float:
    """The largest relative distance past a limit, 0 or less where all are met; infinite where one is undefined."""
    names = [slo.flat_name for slo in slos]
    try:
        values = {name: metrics.value(name) for name in names}
    except UndefinedMetricError:
        return inf
    return max((evaluate(slo, values, {}, None, None).violation for slo in slos), default=0.0)


def thinned(workload: Workload, share: float) -> Workload:
    """About this share of the workload's sessions, spread evenly over it, at their recorded times; at least one."""
    if share >= 1:
        return workload
    requests = list(workload)
    sessions = list(dict.fromkeys(request.session_id or request.request_id for request in requests))
    ranks = np.floor(np.arange(len(sessions)) * share)
    kept = {session for session, step in zip(sessions, np.diff(ranks, prepend=-1.0), strict=True) if step > 0}
    chosen = [request for request in requests if (request.session_id or request.request_id) in kept]
    return part_of(workload, chosen)
