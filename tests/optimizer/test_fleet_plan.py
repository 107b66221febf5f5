"""Fleets of one config and mixed ones keep the same promise."""

from pathlib import Path

import pytest
from simulated_cases import write_model, write_traffic

from optimizer.cli.plan import fitting_configs
from optimizer.cli.simulated_hardware import make_simulated_backend
from optimizer.fleet_plan import FleetPlanner
from optimizer.slo import parse_slos
from search_spaces.skus import load_all_skus
from workloads.parquet import read_workload

LIMITS = parse_slos(["ttft:p95<2s; tpot:p95<60ms"])


@pytest.mark.parametrize("rate_rps", [10.0, 40.0])
def test_a_mix_of_one_kind_is_the_fleet_of_that_kind_but_for_the_closeness_of_its_capacity(
    tmp_path: Path, rate_rps: float
) -> None:
    traffic = write_traffic(tmp_path / "traffic.parquet", num_requests=150, rate_rps=rate_rps)
    skus = load_all_skus((), {})
    backend = make_simulated_backend(skus)
    planner = FleetPlanner(backend=backend, workload=read_workload(traffic), skus=skus, headroom=0.2)
    configs = fitting_configs(backend, str(write_model(tmp_path / "model")), ["mi300x"])[:1]
    alone, mixed = planner.options(configs, LIMITS)[0], planner.mixed(configs, LIMITS)
    assert mixed is not None
    assert alone.holds
    assert mixed.holds
    assert len(mixed.pools) == 1
    assert abs(mixed.pools[0].replicas - alone.fleet.cost.replicas) <= max(1, 0.1 * alone.fleet.cost.replicas)


@pytest.mark.parametrize("rate_rps", [10.0, 40.0])
def test_a_mixed_fleet_is_no_dearer_than_the_best_of_one_kind(tmp_path: Path, rate_rps: float) -> None:
    traffic = write_traffic(tmp_path / "traffic.parquet", num_requests=150, rate_rps=rate_rps)
    skus = load_all_skus((), {})
    backend = make_simulated_backend(skus)
    planner = FleetPlanner(backend=backend, workload=read_workload(traffic), skus=skus, headroom=0.2)
    configs = fitting_configs(backend, str(write_model(tmp_path / "model")), ["mi300x", "l4"])
    best = planner.options(configs, LIMITS)[0]
    mixed = planner.mixed(configs, LIMITS, alone=best)
    assert best.holds
    assert mixed is not None
    assert mixed.holds
    assert mixed.usd_per_hour <= best.usd_per_hour
