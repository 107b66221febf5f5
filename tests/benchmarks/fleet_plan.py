"""Fleets (P12): the integer program against the exact optimum, and a mixed fleet against the best of one SKU.

    python -m tests.benchmarks.fleet_plan [--json FILE]

(1) `cheapest_mix` on random tables: 20 SKUs with 10 configs each (200 columns) and with 200 each (4,000), 4 kinds of
requests; its cost over that of an exact solve (no gap, no time limit but --exact-seconds) and its time. Tables are made
up: a SKU has a price, a speed per dollar near the others' and a size of request that it is best at.
(2) `FleetPlanner` on a two-cluster workload (short chats and long documents, as in Mélange, Griggs et al. 2024) for an
8 B model with roofline step times and the catalogue's prices: predictions, not measurements.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from engine.simulated_backend import SimulatedBackend
from optimizer.cli.plan import fitting_configs
from optimizer.environment import describe_environment
from optimizer.fleet_mix import Mix, cheapest_mix
from optimizer.fleet_plan import FleetPlanner
from optimizer.slo import parse_slos
from search_spaces.skus import load_skus
from workloads.metadata import Source, WorkloadMetadata
from workloads.record_arrays import Floats
from workloads.request import Request
from workloads.workload import Workload

NUM_SKUS, NUM_KINDS = 20, 4
CONFIGS_A_SKU = (10, 200)
LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 16384,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip


def main() -> None:
    arguments = parse_arguments()
    result: dict[str, Any] = {"environment": describe_environment()}
    result["program"] = [program(configs, arguments) for configs in CONFIGS_A_SKU]
    result["two_clusters"] = [two_clusters(arguments, rate) for rate in arguments.rates]
    print_result(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=20, help="random tables of each size")
    parser.add_argument("--exact-seconds", type=float, default=60)
    parser.add_argument("--rates", type=float, nargs="+", default=[2, 8, 32], help="requests/s of the two clusters")
    parser.add_argument("--skus", default="l4,l40s,a100_80g,h100_sxm")
    parser.add_argument("--slo", default="tpot:p95<80ms; ttft:p95<4s")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def program(configs_a_sku: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Over random tables: cost over the exact optimum, and seconds."""
    over, seconds, proven = [], [], 0
    for seed in range(arguments.tables):
        load, capacity, usd = random_table(np.random.default_rng(seed), configs_a_sku)
        begin = time.perf_counter()
        found = cheapest_mix(load, capacity, usd)
        seconds.append(time.perf_counter() - begin)
        exact = cheapest_mix(load, capacity, usd, gap=0.0, time_limit_s=arguments.exact_seconds)
        assert found is not None
        assert exact is not None
        assert holds(found, load, capacity), "a plan serves its load"
        over.append(found.usd_per_hour / exact.usd_per_hour - 1)
        proven += exact.lower_bound_usd >= exact.usd_per_hour * (1 - 1e-6)
    return {
        "columns": NUM_SKUS * configs_a_sku, "tables": arguments.tables, "exact_proven": proven,
        "over_exact_median": float(np.median(over)), "over_exact_max": max(over),
        "seconds_median": float(np.median(seconds)), "seconds_max": max(seconds),
    }  # fmt: skip


def random_table(rng: np.random.Generator, configs_a_sku: int) -> tuple[Floats, Floats, Floats]:
    """Load (kinds,), capacity (kinds, configs) and dollars (configs,)."""
    usd = np.repeat(rng.uniform(0.5, 8, NUM_SKUS), configs_a_sku)
    per_usd = np.repeat(rng.lognormal(0, 0.25, NUM_SKUS), configs_a_sku) * rng.lognormal(-0.3, 0.3, len(usd))
    best_size = np.repeat(rng.uniform(0, NUM_KINDS, NUM_SKUS), configs_a_sku)
    distance = np.abs(np.arange(NUM_KINDS)[:, None] - best_size)
    capacity = usd * per_usd * np.exp(-0.4 * distance) * 4.0 ** -np.arange(NUM_KINDS)[:, None] * 10
    capacity[distance > 3] = 0.0
    return rng.uniform(1, 20, NUM_KINDS) * 4.0 ** -np.arange(NUM_KINDS), capacity, usd


def holds(mix: Mix, load: Floats, capacity: Floats) -> bool:
    """Whether no replica is busier than it can be and every kind is served."""
    busy = np.divide(load[:, None] * mix.shares, capacity, out=np.zeros_like(capacity), where=capacity > 0)
    return bool((busy.sum(axis=0) <= mix.replicas + 1e-6).all() and (mix.shares[capacity <= 0] <= 1e-9).all())


def two_clusters(arguments: argparse.Namespace, rate: float) -> dict[str, Any]:
    """The planner's mixed fleet beside the cheapest of one SKU."""
    skus, slos = load_skus(), parse_slos([arguments.slo])
    backend = SimulatedBackend(skus)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(LLAMA_8B))
        configs = fitting_configs(backend, folder, arguments.skus.split(","))
        planner = FleetPlanner(backend=backend, workload=two_cluster_workload(rate), skus=skus, headroom=0.2)
        begin = time.perf_counter()
        options = planner.options(configs, slos)
        mixed = planner.mixed(options, slos)
    single = [option for option in options if option.holds]
    assert single, "the limits can be held"
    assert mixed is not None
    return {
        "requests_per_second": rate, "slo": arguments.slo, "seconds": time.perf_counter() - begin,
        "single_usd": single[0].usd_per_hour,
        "single": f"{single[0].fleet.cost.replicas} x {words(single[0].config)}",
        "mixed_usd": mixed.usd_per_hour, "mixed_holds": mixed.holds,
        "mixed": ", ".join(f"{pool.replicas} x {words(pool.config)}" for pool in mixed.pools),
        "saved": 1 - mixed.usd_per_hour / single[0].usd_per_hour,
    }  # fmt: skip


def words(config: Any) -> str:
    return f"{config.hardware.count} {config.hardware.sku}"


def two_cluster_workload(rate: float, num_requests: int = 1000, seed: int = 0) -> Workload:
    """Four of five requests are chats of some 150 in and 100 out, the others documents of some 8,000 in and 200 out."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, num_requests))
    requests = []
    for number, arrival in enumerate(arrivals.tolist()):
        long = rng.random() < 0.2
        inputs, outputs = (8000, 200) if long else (150, 100)
        sizes = int(inputs * rng.lognormal(0, 0.2)), int(outputs * rng.lognormal(0, 0.3))
        row = Request(request_id=str(number), arrival_s=arrival, input_tokens=sizes[0], output_tokens=sizes[1])
        requests.append(row)
    return Workload.from_requests(requests, WorkloadMetadata(name="two clusters", source=Source(format="made up")))


def print_result(result: dict[str, Any]) -> None:
    console = Console(width=150)
    console.print(", ".join(f"{name} {value}" for name, value in result["environment"].items()))
    table = Table("columns", "tables", "exact proven", "over exact: median", "max", "seconds: median", "max")
    for row in result["program"]:
        table.add_row(
            str(row["columns"]), str(row["tables"]), str(row["exact_proven"]), f"{row['over_exact_median']:.2%}",
            f"{row['over_exact_max']:.2%}", f"{row['seconds_median']:.2f}", f"{row['seconds_max']:.2f}",
        )  # fmt: skip
    console.print(table)
    table = Table("requests/s", "best of one SKU", "$/hour", "mixed", "$/hour", "limits", "saved", title="predicted")
    for row in result["two_clusters"]:
        table.add_row(
            f"{row['requests_per_second']:g}", row["single"], f"{row['single_usd']:.2f}", row["mixed"],
            f"{row['mixed_usd']:.2f}", "met" if row["mixed_holds"] else "missed", f"{row['saved']:.0%}",
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    main()
