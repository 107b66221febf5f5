"""Fleets by simulation, against a server whose answers are known."""

import numpy as np
import pytest

from engine.simulated_backend import Serving
from engine.simulator.oracle import ConstantOracle
from engine.simulator.settings import SchedulerSettings
from optimizer.cost import RecordedLoad
from optimizer.predicted_fleet import PredictedFleet, predict_fleet
from optimizer.simulated_replay import SimulatedReplay, simulated_replay
from optimizer.slo import parse_slos
from search_spaces.skus import load_skus
from workloads.metadata import Source, WorkloadMetadata
from workloads.request import Request
from workloads.workload import Workload

# One at a time, 50 steps of 1 ms: at most 20 requests a second, 51 tokens each.
ONE_AT_A_TIME = SchedulerSettings(num_blocks=10_000, max_num_seqs=1, max_num_batched_tokens=64)
SERVING = Serving(ONE_AT_A_TIME, ConstantOracle(seconds=0.001))
LOAD = RecordedLoad(rate_rps=50.0, tokens_per_request=51.0)
SKU = load_skus()["h100_sxm"].model_copy(update={"usd_per_hour": 2.0})


def requests(arrivals: list[float]) -> SimulatedReplay:
    made = [
        Request(request_id=str(row), arrival_s=arrival, input_tokens=1, output_tokens=50)
        for row, arrival in enumerate(arrivals)
    ]
    return simulated_replay(Workload.from_requests(made, WorkloadMetadata(name="t", source=Source(format="t"))))


EVEN = requests((np.arange(1000) / 50.0).tolist())  # 50 a second


def fleet(replay: SimulatedReplay, slos: str = "", **options: float) -> PredictedFleet:
    limits = parse_slos(slos) if slos else ()
    return predict_fleet(replay, SERVING, LOAD, sku=SKU, sku_count=2, slos=limits, **options)


def test_the_mean_load_takes_as_many_replicas_as_their_capacity_says() -> None:
    found = fleet(EVEN)
    assert found.cost.replicas == 3  # 50 / 20, rounded up
    assert found.cost.usd_per_hour == pytest.approx(3 * 2 * 2.0)
    assert found.cost.utilisation == pytest.approx(50 / 60, rel=0.03)
    assert found.metrics.value("p95_e2el_ms") == pytest.approx(50, rel=0.05)  # three servers, evenly fed: no queue
    # $4 an hour for 20 * 51 tokens a second
    assert found.cost.usd_per_million_tokens.value == pytest.approx(4 / (20 * 51 * 3600) * 1e6, rel=0.03)


def test_headroom_is_paid_for() -> None:
    assert fleet(EVEN, headroom=0.5).cost.replicas == 4  # 75 / 20


def test_a_peak_takes_more_replicas_than_the_mean_load() -> None:
    # Ten at once every 0.2 s: 50 a second, of which the last waits behind three others on three servers.
    peaks = requests([0.2 * (row // 10) for row in range(1000)])
    assert fleet(peaks).cost.replicas == 3
    held = fleet(peaks, "e2el:p95<101ms")
    assert held.metrics.value("p95_e2el_ms") < 101
    assert (held.cost.replicas, held.cost.capacity_basis) == (5, "simulated peaks")


def test_a_limit_that_no_fleet_meets_is_priced_half_busy_and_says_so() -> None:
    found = fleet(EVEN, "e2el:p95<20ms")
    assert (found.cost.replicas, found.cost.capacity_basis) == (6, "simulated half load")
    assert any("an idle server of this config has p95_e2el" in note for note in found.notes)
    assert "not even 12 replicas hold the latency limits at the recorded arrivals: 6 are priced" in found.notes


def test_a_busy_fleet_warns_of_its_own_prediction() -> None:
    crowded = requests((np.arange(1000) / 59.5).tolist())
    load = RecordedLoad(rate_rps=59.5, tokens_per_request=51.0)
    found = predict_fleet(crowded, SERVING, load, sku=SKU, sku_count=1)
    assert any("near saturation predictions are worst" in note for note in found.notes)
