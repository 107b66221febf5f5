"""`fopt plan`: fleets for a recorded load, predicted; and its error lines."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from simulated_cases import write_model, write_study, write_traffic

from engine.config import EngineConfig
from engine.simulator.corrected import Correction
from optimizer.cli import main
from optimizer.cli.plan import fitting_configs
from optimizer.cli.simulated_hardware import make_simulated_backend
from optimizer.fleet_plan import length_buckets
from optimizer.simulated_replay import simulated_replay
from search_spaces.skus import load_all_skus
from workloads.parquet import read_workload

Plan = Callable[..., str]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture
def traffic(tmp_path: Path) -> Path:
    return write_traffic(tmp_path / "traffic.parquet", num_requests=120, rate_rps=20.0)


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], traffic: Path, model: Path) -> Plan:
    """Runs `fopt plan TRAFFIC --model MODEL ARGUMENTS` to the exit code given; stdout, or stderr when it fails."""

    def run(*arguments: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["fopt", "plan", str(traffic), "--model", str(model), *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        told = capsys.readouterr()
        assert stop.value.code == code, told.err
        assert not (code and told.out)
        return told.err if code else told.out

    return run


def test_a_plan_names_the_cheapest_fleet_and_says_that_it_is_predicted(plan: Plan) -> None:
    told = plan("--skus", "mi300x,l4", "--slo", "ttft:p95<2s")
    assert "predicted by a simulator, not measured" in told
    assert "x mi300x holds the load for $" in told
    assert "Cheapest fleet by request length" in told
    assert "ttft:p95<1000ms" in told  # the notch below
    assert "roofline: data sheet of mi300x" in told


def test_a_measured_study_makes_a_slower_device_dearer(plan: Plan, traffic: Path, model: Path, tmp_path: Path) -> None:
    tried = [EngineConfig(model=str(model), engine="vllm", max_num_seqs=number) for number in (16, 128)]
    study = write_study(tmp_path / "mine", traffic, tried, sku="mi300x", truth=Correction(mixed_scale=8.0))
    options = ["--skus", "mi300x", "--slo", "ttft:p95<2s", "--json"]
    before, after = (json.loads(plan(*options, *more))["fleets"][0] for more in ([], ["--measured", f"mi300x={study}"]))
    assert after["cost"]["usd_per_hour"] > before["cost"]["usd_per_hour"]
    assert "corrected by a fit on 2 trials of mine, measured on mi300x" in after["basis"]


def test_dollars_are_replicas_times_price(plan: Plan) -> None:
    told = json.loads(plan("--skus", "mi300x", "--slo", "ttft:p95<2s", "--price", "mi300x=10", "--json"))
    (fleet,) = told["fleets"]
    assert told["provenance"] == "predicted"
    assert fleet["holds"]
    assert fleet["metrics"]["p95_ttft_ms"] < 2000
    cost = fleet["cost"]
    assert cost["usd_per_hour"] == pytest.approx(10 * cost["sku_count"] * cost["replicas"])
    mixed = told["mixed"]
    assert mixed["usd_per_hour"] == pytest.approx(sum(pool["usd_per_hour"] for pool in mixed["pools"]))
    for bucket in range(len(mixed["bucket_ends_tokens"])):
        assert sum(pool["shares"][bucket] for pool in mixed["pools"]) == pytest.approx(1)
    prices = [notch["usd_per_hour"] for notch in told["other_limits"]]
    held = [price for price in prices if price is not None]
    assert held == sorted(held, reverse=True)  # looser limits never cost more


def test_limits_that_no_fleet_meets_are_an_answer(plan: Plan) -> None:
    told = plan("--skus", "l4", "--slo", "ttft:p95<1ms")
    assert "No fleet of one kind meets every limit; 4 x l4 comes nearest, with p95_ttft_ms " in told.replace("\n", " ")
    assert "missed" in told
    assert "No mixed fleet" in told
    assert "an idle server of this config has p95_ttft" in told.replace("\n", " ")


def test_without_limits_replicas_are_counted_at_saturation(plan: Plan) -> None:
    told = json.loads(plan("--skus", "mi300x", "--json"))
    assert told["fleets"][0]["cost"]["capacity_basis"] == "simulated saturation"
    assert told["other_limits"] == []


def test_a_page_shows_cost_against_limits(plan: Plan, tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    told = plan("--skus", "mi300x,l4", "--slo", "ttft:p95<2s", "--html", page)
    assert "What the next notch costs" in told
    assert "ttft:p95<2s (asked)" in told or "ttft:p95<2000ms (asked)" in told
    drawn = page.read_text()
    assert "Predicted, not measured" in drawn
    assert "roofline" in drawn
    assert 'aria-label="Predicted dollars an hour by latency limit' in drawn
    assert "exists" in plan("--skus", "l4", "--html", page, code=2)
    assert "no folder" in plan("--skus", "l4", "--html", tmp_path / "none" / "plan.html", code=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--skus", "h100smx"], "no SKU is called 'h100smx'"),
        (["--skus", "l4", "--slo", "quality>0.9"], "upper limits on latencies alone"),
        (["--skus", "l4", "--slo", "ttft:p95>1s"], "upper limits on latencies alone"),
        (["--skus", "local"], "--steps"),
        (["--skus", "l4", "--price", "l4=cheap"], "is not a number"),
        ([], "--skus"),
    ],
)
def test_what_cannot_be_planned_is_one_line(plan: Plan, options: list[str], words: str) -> None:
    assert words in plan(*options, code=2)


def test_a_model_that_fits_nowhere_is_told_what_it_would_take(plan: Plan, model: Path) -> None:
    write_model(model, num_hidden_layers=2000)
    told = plan("--skus", "l4", code=2)
    assert "runs on none of these SKUs: each of 8 l4 would hold" in told
    assert "take a SKU with more memory" in told


def test_only_pairs_that_hold_the_model_are_planned(model: Path) -> None:
    write_model(model, num_hidden_layers=120)  # more than one L4 holds
    configs = fitting_configs(make_simulated_backend(load_all_skus()), str(model), ("l4", "mi300x"))
    assert [(c.hardware.sku, c.hardware.count) for c in configs] == [
        ("l4", 4),
        ("l4", 8),
        ("mi300x", 1),  # the catalogue does not know its link, without which no split is predicted
    ]


def test_buckets_part_the_tokens_evenly_and_lose_no_request(traffic: Path) -> None:
    replay = simulated_replay(read_workload(traffic))
    edges, bucket_of = length_buckets(replay)
    totals = replay.traffic.input_tokens + replay.traffic.output_tokens
    assert len(edges) == 4
    assert edges[-1] == totals.max()
    for bucket, edge in enumerate(edges):
        inside = totals[bucket_of == bucket]
        assert inside.max() <= edge
        assert inside.sum() == pytest.approx(totals.sum() / 4, rel=0.1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("skus: [\n", "line 2, column 1: expected the node content"),
        ("mychip:\n  memory_gib: 80\n", "unknown key 'mychip'"),
        ("hello\n", "is not a mapping"),
    ],
)
def test_a_malformed_catalogue_is_one_line(plan: Plan, tmp_path: Path, text: str, words: str) -> None:
    catalogue = tmp_path / "mine.yaml"
    catalogue.write_text(text)
    told = plan("--skus", "l4", "--catalogue", catalogue, code=2)
    assert words in told.replace("\n", " ")
    assert told.startswith("fopt: error: ")
    assert "<unicode string>" not in told


def test_a_price_for_an_unknown_sku_names_the_nearest(plan: Plan) -> None:
    assert "Did you mean 'h100_sxm'?" in plan("--skus", "l4", "--price", "h100smx=3", code=2)
