"""What a config holds according to the simulator: capacity under SLOs, and the replicas of a recorded load.

Does not know prices or how step times were come by. Everything here is a prediction.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from engine.simulator.oracle import Provenance, StepTimeOracle
from engine.simulator.settings import SchedulerSettings
from engine.simulator.simulate import simulate
from engine.simulator.traffic import Traffic
from optimizer.errors import OptimizerError
from optimizer.simulated_replay import SimulatedReplay
from optimizer.slo import Slo
from optimizer.slo_rate import Bracket, bisect, latency_slos, latency_slos_hold
from workloads.metrics import ServingMetrics, summarize

RAMP_SHARE = 0.2  # of a saturated run, left out at its start
NEAR_SATURATION = 0.85  # utilisation from which queueing makes predictions worst
IDLE_SPEED = 1e-3
MAX_REPLICAS = 1024


class UnreachableSloError(OptimizerError):
    """A latency limit that not even an idle server meets."""


@dataclass(frozen=True, kw_only=True)
class PredictedCapacity:
    """What one replica holds of traffic like the workload's.

    `speed` is in multiples of the recorded rate; `broken_speed` is the lowest that was seen to break an SLO or to
    saturate.
    """

    speed: float
    broken_speed: float
    tokens_per_second: float  # input plus output
    basis: str  # "simulated saturation" or "simulated slo bisection"
    provenance: Provenance
    notes: tuple[str, ...] = ()


def predict(
    replay: SimulatedReplay,
    settings: SchedulerSettings,
    oracle: StepTimeOracle,
    *,
    speed: float = 1.0,
    num_replicas: int = 1,
    router: str = "round_robin",
) -> ServingMetrics:
    """Serving metrics of the workload at a multiple of its recorded rate.

    Raises:
        SimulatorError: a request that never fits.
    """
    traffic = replay.traffic if speed == 1.0 else replay.traffic.at_speed(speed)
    outcome = simulate(traffic, settings, oracle, num_replicas=num_replicas, router=router)
    return summarize(replay.arrays(outcome))


def predict_capacity(
    replay: SimulatedReplay, settings: SchedulerSettings, oracle: StepTimeOracle, *, slos: tuple[Slo, ...] = ()
) -> PredictedCapacity:
    """Saturation without latency SLOs; with them the highest rate at which they hold, within 10%.

    Raises:
        UnreachableSloError: an SLO that not even an idle server meets: it says what that one would need.
        OptimizerError: all requests arrive at once.
        SimulatorError: a request that never fits.
    """
    saturation = saturated_tokens_per_second(replay.traffic, settings, oracle)
    offered = offered_tokens_per_second(replay.traffic)
    limits = latency_slos(slos)
    most = saturation / offered
    if not limits:
        return PredictedCapacity(
            speed=most,
            broken_speed=most,
            tokens_per_second=saturation,
            basis="simulated saturation",
            provenance=oracle.provenance,
        )
    _refuse_what_idle_servers_break(replay, settings, oracle, limits)

    def holds(speed: float) -> bool:
        return latency_slos_hold(predict(replay, settings, oracle, speed=speed), limits)

    lowest = most
    while not holds(lowest):
        lowest /= 2
    bracket = Bracket(lowest, lowest * 2 if lowest < most else most)
    bracket = bisect(holds, bracket, seconds_of=lambda speed: 0.0, budget_s=inf)  # noqa: ARG005
    held = bracket.held or lowest
    near = f"at {held / most:.0%} of saturation, where queueing makes predictions least certain"
    return PredictedCapacity(
        speed=held,
        broken_speed=bracket.broken,
        tokens_per_second=held * offered,
        basis="simulated slo bisection",
        provenance=oracle.provenance,
        notes=(near,) if held / most >= NEAR_SATURATION else (),
    )


def replicas_for(
    replay: SimulatedReplay,
    settings: SchedulerSettings,
    oracle: StepTimeOracle,
    *,
    slos: tuple[Slo, ...],
    headroom: float = 0.2,
    router: str = "least_loaded",
) -> int:
    """The fewest replicas behind a router that hold the latency SLOs on the recorded arrivals, peaks included.

    Args:
        headroom: share by which the recorded rate is raised first; 0.2 leaves a sixth of the fleet's capacity free.

    Raises:
        OptimizerError: no SLO on a latency, or one that not even an idle server or `MAX_REPLICAS` of them meet.
        SimulatorError: a request that never fits.
    """
    limits = latency_slos(slos)
    if not limits:
        raise OptimizerError("replicas are sized by latency limits. Give one, for example --slo 'ttft:p95<500ms'")
    _refuse_what_idle_servers_break(replay, settings, oracle, limits)

    def hold(num_replicas: int) -> bool:
        metrics = predict(replay, settings, oracle, speed=1 + headroom, num_replicas=num_replicas, router=router)
        return latency_slos_hold(metrics, limits)

    enough = 1
    while not hold(enough):
        enough *= 2
        if enough > MAX_REPLICAS:
            raise OptimizerError(f"not even {MAX_REPLICAS} replicas hold the latency limits. Relax one of them")
    too_few = enough // 2
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        enough, too_few = (middle, too_few) if hold(middle) else (enough, middle)
    return enough


def offered_tokens_per_second(traffic: Traffic) -> float:
    """Input plus output tokens over the time between the first and the last arrival.

    Raises:
        OptimizerError: all requests arrive at once.
    """
    span_s = float(np.ptp(traffic.arrival_s))
    if span_s <= 0:
        raise OptimizerError("all requests arrive at the same time: there is no rate. Give a workload with arrivals")
    return float((traffic.input_tokens + traffic.output_tokens).sum()) / span_s


def saturated_tokens_per_second(traffic: Traffic, settings: SchedulerSettings, oracle: StepTimeOracle) -> float:
    """Input plus output tokens a second with max_num_seqs requests always in flight, without ramp-up and drain.

    Of a replica split into prefill and decode instances, as many for each of them.
    """
    closed = Traffic(
        arrival_s=np.zeros(len(traffic)),
        input_tokens=traffic.input_tokens,
        output_tokens=traffic.output_tokens,
        block_hashes=traffic.block_hashes,
        hash_block_tokens=traffic.hash_block_tokens,
        max_concurrency=settings.max_num_seqs * (settings.split.num_instances if settings.split else 1),
    )
    outcome = simulate(closed, settings, oracle)
    end = float(outcome.start_s.max())  # from here on it drains
    if end < 0.5 * outcome.end_s.max():  # too few requests to fill it for long: the whole run counts
        return float((traffic.input_tokens + traffic.output_tokens).sum() / outcome.end_s.max())
    begin = RAMP_SHARE * end
    inside = (outcome.first_token_s >= begin) & (outcome.first_token_s < end)
    answers = np.count_nonzero((outcome.token_times_s >= begin) & (outcome.token_times_s < end))
    return float((traffic.input_tokens[inside].sum() + answers) / (end - begin))


def _refuse_what_idle_servers_break(
    replay: SimulatedReplay, settings: SchedulerSettings, oracle: StepTimeOracle, limits: tuple[Slo, ...]
) -> None:
    metrics = predict(replay, settings, oracle, speed=IDLE_SPEED)
    for slo in limits:
        if not latency_slos_hold(metrics, (slo,)):
            name, best_s = slo.flat_name.removesuffix("_ms"), metrics.value(slo.flat_name) / 1000
            raise UnreachableSloError(
                f"{slo} holds at no rate: an idle server of this config has {name} {1000 * best_s:.4g}ms. "
                "Relax the limit, or take a faster SKU or a wider parallel split"
            )
