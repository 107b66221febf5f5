"""`Capacity`: how much traffic one replica holds, measured by a saturation probe and, with latency SLOs, a bisection.

Does not know prices.
"""

from __future__ import annotations

from dataclasses import dataclass

from optimizer.client import Client, Report, silent
from optimizer.fidelity import TrialWindow
from optimizer.measurement import Measurement
from optimizer.saturation import saturate
from optimizer.slo import Slo
from optimizer.slo_rate import Bracket, bisect_speed, latency_slos, latency_slos_hold
from workloads.estimate import Estimate

MAX_CONCURRENCY = 256
BISECTION_PROBES = 4  # time of a bisection, in probes


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What one replica holds of traffic like the window's."""

    tokens_per_second: Estimate  # input plus output
    basis: str  # "saturation" or "slo bisection"
    notes: tuple[str, ...] = ()


def probe_capacity(
    client: Client,
    window: TrialWindow,
    measured: Measurement,
    *,
    max_num_seqs: int,
    probe_s: float,
    slos: tuple[Slo, ...] = (),
    saturation: Estimate | None = None,
    report: Report = silent,
) -> Capacity:
    """Saturation without latency SLOs; with them the highest speed of the window at which they hold.

    The bisection's interval is its last bracket: the SLOs held at the low end, which is also the value, and were
    broken (or the engine saturated) at the high end.

    Args:
        measured: the window at its recorded speed, which tells the side to search on.
        saturation: where `probe_saturation` was asked before.

    Raises:
        EngineError: the engine died or hung.
    """
    if saturation is None:
        saturation = probe_saturation(client, window, max_num_seqs=max_num_seqs, probe_s=probe_s, report=report)
    limits = latency_slos(slos)
    if not limits:
        return Capacity(tokens_per_second=saturation, basis="saturation")
    if latency_slos_hold(measured.metrics, limits):
        bracket = Bracket(1.0, max(1.0, saturation.value / window.tokens_per_second))
    else:
        bracket = Bracket(None, 1.0)
    budget_s = BISECTION_PROBES * probe_s
    bracket = bisect_speed(
        client, window, bracket, slos=limits, measured=measured.metrics.arrays, budget_s=budget_s, report=report
    )
    if bracket.held is None:
        note = "the latency SLOs held at no rate that was tried: priced at saturation"
        return Capacity(tokens_per_second=saturation, basis="saturation", notes=(note,))
    return Capacity(tokens_per_second=_at_speed(bracket.held, bracket.broken, window), basis="slo bisection")


def probe_saturation(
    client: Client, window: TrialWindow, *, max_num_seqs: int, probe_s: float, report: Report = silent
) -> Estimate:
    """Input plus output tokens per second that a server gives when it never waits for work.

    Raises:
        EngineError: the engine died or hung.
    """
    report("probing saturation")
    client.server.reset_prefix_cache()
    return saturate(client, window.probe, concurrency=min(max_num_seqs, MAX_CONCURRENCY), probe_s=probe_s)


def _at_speed(held: float, broken: float, window: TrialWindow) -> Estimate:
    rate = window.tokens_per_second
    return Estimate(value=held * rate, low=held * rate, high=broken * rate, num_samples=len(window.window))
