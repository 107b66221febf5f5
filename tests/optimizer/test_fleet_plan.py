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
    options = planner.options(configs, LIMITS)
    alone, mixed = options[0], planner.mixed(options, LIMITS)
    assert mixed is not None
    assert alone.holds
    assert mixed.holds
    assert len(mixed.pools) == 1
    assert abs(mixed.pools[0].replicas - alone.fleet.cost.replicas) <= max(1, 0.1 * alone.fleet.cost.replicas)


@pytest.mark.parametrize("limits", ["ttft:p95<2s; tpot:p95<60ms", "ttft:p95<700ms; tpot:p95<45ms", ""])
@pytest.mark.parametrize("rate_rps", [3.0, 12.0, 30.0])
def test_a_mixed_fleet_is_never_dearer_than_the_best_of_one_kind(tmp_path: Path, rate_rps: float, limits: str) -> None:
    traffic = write_traffic(tmp_path / "traffic.parquet", num_requests=150, rate_rps=rate_rps)
    skus = load_all_skus((), {})
    backend = make_simulated_backend(skus)
    slos = parse_slos([limits]) if limits else ()
    planner = FleetPlanner(backend=backend, workload=read_workload(traffic), skus=skus, headroom=0.2)
    configs = fitting_configs(backend, str(write_model(tmp_path / "model")), ["l40s", "mi300x", "h100_pcie"])
    options = planner.options(configs, slos)
    mixed = planner.mixed(options, slos)
    held = [option.usd_per_hour for option in options if option.holds]
    if held:
        assert mixed is not None
        assert mixed.holds
        assert mixed.usd_per_hour <= min(held) + 1e-9
