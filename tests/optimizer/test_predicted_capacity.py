"""Capacity and fleets by simulation, against queues whose answer is known."""

import numpy as np
import pytest

from engine.simulator.oracle import ConstantOracle, Source
from engine.simulator.settings import SchedulerSettings
from optimizer.errors import OptimizerError
from optimizer.predicted_capacity import predict, predict_capacity, replicas_for
from optimizer.simulated_replay import SimulatedReplay, simulated_replay
from optimizer.slo import parse_slos
from workloads.metadata import Source as Origin
from workloads.metadata import WorkloadMetadata
from workloads.request import Request
from workloads.workload import Workload

# One at a time, 50 steps of 1 ms: at most 20 requests a second, 51 tokens each.
ONE_AT_A_TIME = SchedulerSettings(num_blocks=10_000, max_num_seqs=1, max_num_batched_tokens=64)
STEP = ConstantOracle(seconds=0.001)
SERVICE_S, TOKENS = 0.05, 51


@pytest.fixture(scope="module")
def replay() -> SimulatedReplay:
    """4,000 Poisson arrivals at 10 a second: half of what one server holds."""
    arrivals = np.cumsum(np.random.default_rng(3).exponential(0.1, 4000))
    requests = [
        Request(request_id=str(row), arrival_s=float(arrival), input_tokens=1, output_tokens=50)
        for row, arrival in enumerate(arrivals)
    ]
    return simulated_replay(Workload.from_requests(requests, WorkloadMetadata(name="t", source=Origin(format="t"))))


def test_saturation_is_the_service_rate(replay: SimulatedReplay) -> None:
    capacity = predict_capacity(replay, ONE_AT_A_TIME, STEP)
    assert capacity.tokens_per_second == pytest.approx(TOKENS / SERVICE_S, rel=0.02)
    assert capacity.speed == pytest.approx(2, rel=0.05)
    assert (capacity.basis, capacity.provenance.source) == ("simulated saturation", Source.CONSTANT)


def test_a_mean_latency_limit_is_met_at_the_rate_of_queueing_theory(replay: SimulatedReplay) -> None:
    # M/D/1: mean time in the system s + ρ s / (2 (1 - ρ)) is 2 s at ρ = 2/3, that is 4/3 of the recorded rate.
    capacity = predict_capacity(replay, ONE_AT_A_TIME, STEP, slos=parse_slos("e2el:mean<100ms"))
    middle = (capacity.speed * capacity.broken_speed) ** 0.5
    assert middle == pytest.approx(4 / 3, rel=0.15)  # of one sample of arrivals
    means = [
        predict(replay, ONE_AT_A_TIME, STEP, speed=speed).mean("e2el")
        for speed in (capacity.speed, capacity.broken_speed)
    ]
    assert means[0] < 0.1 <= means[1]
    assert capacity.broken_speed / capacity.speed <= 1.1
    assert capacity.notes == ()


def test_a_loose_limit_is_held_near_saturation_and_says_so(replay: SimulatedReplay) -> None:
    capacity = predict_capacity(replay, ONE_AT_A_TIME, STEP, slos=parse_slos("e2el:mean<1s"))
    assert capacity.speed > 1.7
    assert "of saturation" in capacity.notes[0]


def test_a_limit_below_an_idle_servers_latency_names_the_nearest(replay: SimulatedReplay) -> None:
    with pytest.raises(OptimizerError, match=r"e2el:p50<40ms holds at no rate: an idle server .* 50ms"):
        predict_capacity(replay, ONE_AT_A_TIME, STEP, slos=parse_slos("e2el:p50<40ms"))


def test_replicas_hold_the_limits_and_one_fewer_does_not(replay: SimulatedReplay) -> None:
    slos = parse_slos("e2el:p95<60ms")
    found = replicas_for(replay, ONE_AT_A_TIME, STEP, slos=slos, headroom=0.5)
    assert found > 1
    fewer, enough = [
        predict(replay, ONE_AT_A_TIME, STEP, speed=1.5, num_replicas=number, router="least_loaded")
        for number in (found - 1, found)
    ]
    assert fewer.percentile("e2el", 95) >= 0.06 > enough.percentile("e2el", 95)


def test_a_fleet_needs_a_latency_limit(replay: SimulatedReplay) -> None:
    with pytest.raises(OptimizerError, match="latency limits"):
        replicas_for(replay, ONE_AT_A_TIME, STEP, slos=parse_slos("cost<1"))
