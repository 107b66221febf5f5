"""`PredictedFleet`: the replicas of one config that a recorded load takes, what they cost, and the latencies they give.

Does not know configs or how step times were come by. Everything here is a prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.simulated_backend import Serving
from engine.simulator.outcome import Outcome
from engine.simulator.simulate import simulate
from optimizer.capacity import Capacity
from optimizer.cost import RecordedLoad, price
from optimizer.measurement import thresholds
from optimizer.predicted_capacity import (
    NEAR_SATURATION,
    PredictedCapacity,
    UnreachableSloError,
    predict_capacity,
)
from optimizer.results import Cost
from optimizer.simulated_replay import SimulatedReplay
from optimizer.slo import Slo
from optimizer.slo_rate import latency_slos, latency_slos_hold
from search_spaces.skus import Sku
from workloads.estimate import Estimate
from workloads.metrics import ServingMetrics, summarize

ROUTER = "least_loaded"
_MOST_TIMES = 4  # replicas tried, in multiples of what the mean load takes


@dataclass(frozen=True, kw_only=True)
class PredictedFleet:
    """`cost.replicas` behind a router; `metrics` are theirs at the recorded arrivals."""

    cost: Cost
    metrics: ServingMetrics
    outcome: Outcome
    notes: tuple[str, ...] = ()


def predict_fleet(
    replay: SimulatedReplay,
    serving: Serving,
    load: RecordedLoad,
    *,
    sku: Sku,
    sku_count: int,
    slos: tuple[Slo, ...] = (),
    headroom: float = 0.0,
) -> PredictedFleet:
    """Replicas for the mean load by capacity, then as many more as the recorded peaks take to hold the latency SLOs.

    Args:
        load: of the whole workload, which the replay may be a part of.
        headroom: share by which the load is raised before replicas are counted.

    Raises:
        OptimizerError: all requests arrive at once.
        SimulatorError: a request that never fits.
    """
    capacity = _capacity(replay, serving, slos)
    raised = RecordedLoad(rate_rps=load.rate_rps * (1 + headroom), tokens_per_request=load.tokens_per_request)
    least = price(capacity, raised, sku=sku, sku_count=sku_count).replicas
    replicas, held = _replicas_of_peaks(replay, serving, least, latency_slos(slos), speed=1 + headroom)
    if replicas > least:
        capacity = _share_of(raised, replicas, capacity, held=held)
    outcome = _outcome(replay, serving, replicas, speed=1.0)
    cost = price(capacity, load, sku=sku, sku_count=sku_count, replicas=replicas)
    notes = [*capacity.notes]
    if not held:
        tried = _MOST_TIMES * least
        notes.append(
            f"not even {tried} replicas hold the latency limits at the recorded arrivals: {replicas} are priced"
        )
    if outcome.utilisation.max() >= NEAR_SATURATION:
        busiest = f"{outcome.utilisation.max():.0%}"
        what = "replica" if serving.settings.split is None else "instance"
        notes.append(f"the busiest {what} computes {busiest} of the time: near saturation predictions are worst")
    metrics = summarize(replay.arrays(outcome), thresholds(slos))
    return PredictedFleet(cost=cost, metrics=metrics, outcome=outcome, notes=tuple(notes))


def _capacity(replay: SimulatedReplay, serving: Serving, slos: tuple[Slo, ...]) -> Capacity:
    """Of one replica; its saturation when it meets the latency SLOs at no rate."""
    try:
        return _as_capacity(predict_capacity(replay, *serving, slos=slos), replay)
    except UnreachableSloError as error:
        return _as_capacity(predict_capacity(replay, *serving), replay, f"{error}")


def _as_capacity(predicted: PredictedCapacity, replay: SimulatedReplay, *notes: str) -> Capacity:
    """The interval is the bisection's last bracket, not the simulator's error, which is not known for rates."""
    held = predicted.tokens_per_second
    high = held * predicted.broken_speed / predicted.speed
    rate = Estimate(value=held, low=held, high=high, num_samples=len(replay.traffic))
    return Capacity(tokens_per_second=rate, basis=predicted.basis, notes=(*predicted.notes, *notes))


def _share_of(load: RecordedLoad, replicas: int, mean: Capacity, *, held: bool) -> Capacity:
    """A replica's share of the load, where peaks and not the mean rate decide: one replica less did not hold it.

    Where no number holds the limits, it is the share at which a server is about half busy.
    """
    share = load.rate_rps * load.tokens_per_request / replicas
    high = share * replicas / (replicas - 1) if held else share
    rate = Estimate(value=share, low=share, high=high, num_samples=mean.tokens_per_second.num_samples)
    if held:
        note = "the recorded peaks, not the mean rate, decide how many replicas it takes"
        return Capacity(tokens_per_second=rate, basis="simulated peaks", notes=(note,))
    return Capacity(tokens_per_second=rate, basis="simulated half load", notes=mean.notes)


def _replicas_of_peaks(
    replay: SimulatedReplay, serving: Serving, least: int, limits: tuple[Slo, ...], *, speed: float
) -> tuple[int, bool]:
    """From `least` on, the fewest that hold the limits (by bisection), and whether any number tried does.

    Twice the least where none does: servers about half busy, whose latencies say what could be reached.
    """

    def hold(replicas: int) -> bool:
        metrics = summarize(replay.arrays(_outcome(replay, serving, replicas, speed=speed)))
        return latency_slos_hold(metrics, limits)

    if not limits or hold(least):
        return least, True
    too_few, enough = least, _MOST_TIMES * least
    if not hold(enough):
        return 2 * least, False
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        too_few, enough = (too_few, middle) if hold(middle) else (middle, enough)
    return enough, True


def _outcome(replay: SimulatedReplay, serving: Serving, replicas: int, *, speed: float) -> Outcome:
    traffic = replay.traffic if speed == 1.0 else replay.traffic.at_speed(speed)
    return simulate(traffic, serving.settings, serving.oracle, num_replicas=replicas, router=ROUTER)
