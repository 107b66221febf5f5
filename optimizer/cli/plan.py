"""`fopt plan`: how many replicas of which hardware a recorded load takes, and what an hour of them costs.

Does not search scheduler settings and launches nothing: everything it prints is predicted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from engine.config import EngineConfig
from engine.simulated_backend import SimulatedBackend
from optimizer.cli.console import make_table, stdout_console
from optimizer.cli.model_folder import find_simulated_model
from optimizer.cli.progress import Phases
from optimizer.cli.simulated_hardware import SPLITS, chosen_skus, first_fit, make_simulated_backend, simulated_config
from optimizer.errors import OptimizerError
from optimizer.fleet_plan import FleetOption, FleetPlanner, MixedFleet
from optimizer.slo import Slo, parse_slos
from optimizer.slo_rate import latency_slos
from reports.numbers import three_digits
from search_spaces.skus import load_all_skus, parse_prices
from workloads.errors import UndefinedMetricError
from workloads.metrics import ServingMetrics
from workloads.parquet import read_workload

NOTCHES = (0.5, 0.75, 1.5, 2.0)
FILE = click.Path(path_type=Path, dir_okay=False)
_LATENCIES = ("p95_ttft_ms", "p95_tpot_ms")


@click.command(
    "plan", epilog="Example:  fopt plan log.parquet --model DIR --skus h100_sxm,h200,l40s --slo 'ttft:p95<500ms'"
)
@click.argument("workload", type=FILE)
@click.option("--model", type=click.Path(path_type=Path, file_okay=False),
              help="Folder with a config.json, or a known name. Default: the workload's.")  # fmt: skip
@click.option("--skus", required=True, metavar="A,B,C", help="The hardware to choose from.")
@click.option("--slo", "slos", multiple=True, metavar="LIMITS", help="Limits on latencies to keep. Repeatable.")
@click.option("--headroom", type=click.FloatRange(min=0, max=10), default=0.2, show_default=True,
              help="Share by which the recorded load is raised before replicas are counted.")  # fmt: skip
@click.option("--price", "prices", multiple=True, metavar="SKU=USD", help="Dollars per hour of one SKU. Repeatable.")
@click.option("--catalogue", type=FILE, help="Your own hardware catalogue (YAML), laid over the shipped one.")
@click.option("--steps", type=FILE, multiple=True,
              help="A measured trial's steps.parquet, for the SKU `local`. Repeatable.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON on stdout.")
def command(
    workload: Path,
    model: Path | None,
    skus: str,
    slos: tuple[str, ...],
    headroom: float,
    prices: tuple[str, ...],
    catalogue: Path | None,
    steps: tuple[Path, ...],
    seed: int,
    as_json: bool,
) -> None:
    """Size fleets for the load in WORKLOAD: of each SKU alone, and mixed, with short and long requests apart.

    Nothing is measured: latencies and capacities are those of a simulator, unquantized, at the engine's default
    scheduler settings (`fopt run --engine simulated` searches those)."""
    limits = _latency_limits(slos)
    listed = load_all_skus((catalogue,) if catalogue else (), parse_prices(prices))
    names = chosen_skus(listed, skus)
    backend = make_simulated_backend(listed, steps=steps)
    traffic = read_workload(workload)
    configs = fitting_configs(backend, find_simulated_model(model, traffic, workload), names)
    planner = FleetPlanner(backend=backend, workload=traffic, skus=listed, headroom=headroom, seed=seed)
    with Phases("planning", quiet=as_json) as phases:
        phases.show("fleets of one SKU")
        options = _best_of_each_sku(planner.options(configs, limits))
        phases.show("mixed fleets")
        mixed = planner.mixed(configs, limits)
        phases.show("other limits")
        notches = _notches(planner, [option.config for option in options], limits)
    if as_json:
        click.echo(json.dumps(_plain(options, mixed, notches), indent=2))
    else:
        _print(planner, options, mixed, notches)


def _latency_limits(texts: Sequence[str]) -> tuple[Slo, ...]:
    slos = parse_slos(texts) if texts else ()
    for slo in slos:
        if slo not in latency_slos(slos):
            raise OptimizerError(f"{slo.text}: a plan keeps upper limits on latencies alone, such as ttft:p95<500ms")
    return slos


def fitting_configs(backend: SimulatedBackend, model: str, skus: Sequence[str]) -> list[EngineConfig]:
    """Every SKU and parallel split on which the model runs.

    Raises:
        OptimizerError: it runs on none.
    """
    first_fit(backend, model, skus)
    configs = [simulated_config(model, sku, split) for sku in skus for split in SPLITS]
    return [config for config in configs if not backend.check(config)]


def _best_of_each_sku(options: Sequence[FleetOption]) -> list[FleetOption]:
    """The options are sorted: the first of each SKU is its best."""
    best: dict[str, FleetOption] = {}
    for option in options:
        best.setdefault(option.config.hardware.sku, option)
    return list(best.values())


def _notches(
    planner: FleetPlanner, configs: Sequence[EngineConfig], slos: tuple[Slo, ...]
) -> list[tuple[str, FleetOption | None]]:
    """The cheapest one-SKU fleet when every limit is scaled; None where none holds it."""
    found = []
    for factor in NOTCHES if slos else ():
        scaled = tuple(slo.with_limit(float(f"{slo.limit * factor:.6g}")) for slo in slos)
        best = planner.options(configs, scaled)[0]
        found.append(("; ".join(map(str, scaled)), best if best.holds else None))
    return found


def _print(
    planner: FleetPlanner,
    options: Sequence[FleetOption],
    mixed: MixedFleet | None,
    notches: Sequence[tuple[str, FleetOption | None]],
) -> None:
    console = stdout_console()
    console.print(Text(_headline(options, mixed), style="bold"))
    console.print(Text("Everything here is predicted by a simulator, not measured: measure before you rely on it."))
    columns = ["Hardware", "Replicas", "$/hour", "$/M tokens", "p95 TTFT ms", "p95 TPOT ms", "Limits", "Step times"]
    console.print(make_table(columns, [_row(option) for option in options], title="Fleets of one kind"))
    if mixed is None:
        console.print(Text("No mixed fleet: some lengths alone meet the limits on none of these configs."))
    else:
        rows = [[_hardware(p.config), str(p.replicas), _usd(p.usd_per_hour), _served(p.shares, mixed.edges)]
                for p in mixed.pools]  # fmt: skip
        kept = "" if mixed.holds else ", which does not hold the limits at the recorded peaks"
        title = f"Cheapest fleet by request length: {_usd(mixed.usd_per_hour)} an hour{kept}"
        console.print(make_table(["Hardware", "Replicas", "$/hour", "Serves (share: total tokens)"], rows, title=title))
    if notches:
        rows = [[limits, *_notch(option)] for limits, option in notches]
        console.print(make_table(["With these limits instead", "Cheapest fleet of one kind", "$/hour"], rows))
    rested = len(planner.replay.requests)
    console.print(Text(f"Load: {planner.load.rate_rps:.3g} requests/s; {rested:,} requests simulated per fleet."))
    for sentence in dict.fromkeys(f"{o.config.hardware.sku}: {'; '.join([o.basis, *o.fleet.notes])}" for o in options):
        console.print(Text(f"note: {sentence}"))


def _headline(options: Sequence[FleetOption], mixed: MixedFleet | None) -> str:
    best = options[0]
    if not best.holds:
        return "No fleet of one kind meets every limit; the table says what each reaches."
    text = (
        f"{best.fleet.cost.replicas} replicas of {_hardware(best.config)} hold the load for {_usd(best.usd_per_hour)} "
        "an hour"
    )
    if mixed is not None and mixed.holds and mixed.usd_per_hour < best.usd_per_hour:
        saved = 1 - mixed.usd_per_hour / best.usd_per_hour
        return f"{text}; split by request length it takes {_usd(mixed.usd_per_hour)}, {saved:.0%} less."
    return f"{text}; splitting by request length saves nothing."


def _row(option: FleetOption) -> list[str]:
    cost, metrics = option.fleet.cost, option.fleet.metrics
    latencies = [_latency(metrics, name) for name in _LATENCIES]
    million = three_digits(cost.usd_per_million_tokens.value)
    verdict = "met" if option.holds else "missed"
    source = option.basis.split(":")[0]
    return [_hardware(option.config), str(cost.replicas), _usd(option.usd_per_hour), f"${million}",
            *latencies, verdict, source]  # fmt: skip


def _hardware(config: EngineConfig) -> str:
    return f"{config.hardware.count} x {config.hardware.sku}"


def _usd(dollars: float) -> str:
    return f"${three_digits(dollars)}"


def _latency(metrics: ServingMetrics, name: str) -> str:
    try:
        return three_digits(metrics.value(name))
    except UndefinedMetricError:
        return ""


def _served(shares: Sequence[float], edges: Sequence[int]) -> str:
    parts = []
    for bucket, share in enumerate(shares):
        if share > 0.005:
            start = edges[bucket - 1] + 1 if bucket else 1
            parts.append(f"{share:.0%}: {start:,}-{edges[bucket]:,}")
    return ", ".join(parts)


def _notch(option: FleetOption | None) -> list[str]:
    if option is None:
        return ["none holds them", ""]
    return [f"{option.fleet.cost.replicas} x ({_hardware(option.config)})", _usd(option.usd_per_hour)]


def _plain(
    options: Sequence[FleetOption], mixed: MixedFleet | None, notches: Sequence[tuple[str, FleetOption | None]]
) -> dict[str, Any]:
    """For --json."""
    return {
        "provenance": "predicted",
        "fleets": [
            {"config": o.config.model_dump(mode="json"), "cost": o.fleet.cost.model_dump(mode="json"), "holds": o.holds,
             "metrics": o.fleet.metrics.flat(), "basis": o.basis, "notes": list(o.fleet.notes)}
            for o in options
        ],
        "mixed": None if mixed is None else {
            "usd_per_hour": mixed.usd_per_hour, "holds": mixed.holds, "bucket_ends_tokens": list(mixed.edges),
            "pools": [{"config": p.config.model_dump(mode="json"), "replicas": p.replicas,
                       "usd_per_hour": p.usd_per_hour, "shares": list(p.shares)} for p in mixed.pools],
        },
        "other_limits": [
            {"limits": limits, "usd_per_hour": None if option is None else option.usd_per_hour}
            for limits, option in notches
        ],
    }  # fmt: skip
