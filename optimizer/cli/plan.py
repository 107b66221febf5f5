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
from optimizer.cli.inspect import check_page
from optimizer.cli.model_folder import find_simulated_model
from optimizer.cli.plan_page import hardware, latency, plan_page, usd
from optimizer.cli.progress import Phases, stderr_console
from optimizer.cli.simulated_hardware import (
    SPLITS,
    chosen_skus,
    corrected_backend,
    first_fit,
    make_simulated_backend,
    simulated_config,
)
from optimizer.errors import OptimizerError
from optimizer.fleet_plan import FleetOption, FleetPlanner, MixedFleet
from optimizer.limit_ladder import Step, asked, limit_ladder
from optimizer.slo import Slo, parse_slos
from optimizer.slo_rate import latency_slos
from reports.numbers import three_digits
from reports.plan_page import PlanPage, notch_table
from search_spaces.skus import load_all_skus, parse_prices
from workloads.parquet import read_workload

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
              help="A measured trial's steps.parquet or records.parquet, for the SKU `local`. Repeatable.")  # fmt: skip
@click.option("--measured", multiple=True, metavar="SKU=STUDY",
              help="The folder of a study that was measured on a SKU, whose step times are corrected by its trials. "
              "Repeatable.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--html", type=FILE, help="Write a page with the picture of cost against limits.")
@click.option("--force", is_flag=True, help="Overwrite the page.")
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
    measured: tuple[str, ...],
    seed: int,
    html: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Size fleets for the load in WORKLOAD: of each SKU alone, and mixed, with short and long requests apart.

    Nothing is measured: latencies and capacities are those of a simulator, unquantized, at the engine's default
    scheduler settings (`fopt run --engine simulated` searches those)."""
    if html is not None:
        check_page(html, force)
    limits = _latency_limits(slos)
    listed = load_all_skus((catalogue,) if catalogue else (), parse_prices(prices))
    names = chosen_skus(listed, skus)
    backend = make_simulated_backend(listed, steps=steps)
    traffic = read_workload(workload)
    found_model = find_simulated_model(model, traffic, workload)
    backend, corrections = corrected_backend(backend, listed, measured, found_model, traffic)
    for note in corrections:
        stderr_console().print(note)
    configs = fitting_configs(backend, found_model, names)
    planner = FleetPlanner(backend=backend, workload=traffic, skus=listed, headroom=headroom, seed=seed)
    with Phases("planning", quiet=as_json) as phases:
        steps_taken = limit_ladder(planner, configs, limits, report=phases.show)
    page = plan_page(
        steps_taken, workload=traffic.metadata.name, headline=_headline(asked(steps_taken)), load=_load(planner)
    )
    if as_json:
        click.echo(json.dumps(_plain(steps_taken), indent=2))
    else:
        _print(page, asked(steps_taken))
    if html is not None:
        from reports.plan_html import write_plan_html  # templates take a moment to import

        stderr_console().print(f"wrote {write_plan_html(page, html)}")


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


def _print(page: PlanPage, step: Step) -> None:
    console, mixed = stdout_console(), step.mixed
    console.print(Text(page.headline, style="bold"))
    console.print(Text("Everything here is predicted by a simulator, not measured: measure before you rely on it."))
    columns = ["Hardware", "Replicas", "$/hour", "$/M tokens", "p95 TTFT ms", "p95 TPOT ms", "Limits", "Step times"]
    console.print(make_table(columns, [_row(option) for option in step.options], title="Fleets of one kind"))
    if mixed is None:
        console.print(Text("No mixed fleet: some lengths alone meet the limits on none of these configs."))
    else:
        rows = [[hardware(p.config), str(p.replicas), usd(p.usd_per_hour), _served(p.shares, mixed.edges)]
                for p in mixed.pools]  # fmt: skip
        kept = "" if mixed.holds else ", which does not hold the limits at the recorded peaks"
        title = f"Cheapest fleet by request length: {usd(mixed.usd_per_hour)} an hour{kept}"
        console.print(make_table(["Hardware", "Replicas", "$/hour", "Serves (share: total tokens)"], rows, title=title))
    if step.slos:
        table = notch_table(page)
        console.print(make_table([column.name for column in table.columns], table.texts(), title=table.title))
        console.print(Text(table.note))
    console.print(Text(page.load))
    sentences = (f"{o.config.hardware.sku}: {'; '.join([o.basis, *o.fleet.notes])}" for o in step.options)
    for sentence in dict.fromkeys(sentences):
        console.print(Text(f"note: {sentence}"))


def _load(planner: FleetPlanner) -> str:
    num_simulated = len(planner.replay.requests)
    return f"Load: {planner.load.rate_rps:.3g} requests/s; {num_simulated:,} requests simulated per fleet."


def _headline(step: Step) -> str:
    best, mixed = step.cheapest, step.held_mix
    if best is None:
        split = f"split by request length it takes {usd(mixed.usd_per_hour)} an hour" if mixed is not None else ""
        return f"No fleet of one kind meets every limit; {split or _nearest(step)}."
    replicas = best.fleet.cost.replicas
    who = f"{replicas} replicas of {hardware(best.config)} hold" if replicas > 1 else f"{hardware(best.config)} holds"
    text = f"{who} the load for {usd(best.usd_per_hour)} an hour"
    if mixed is not None and mixed.usd_per_hour < best.usd_per_hour:
        saved = 1 - mixed.usd_per_hour / best.usd_per_hour
        return f"{text}; split by request length it takes {usd(mixed.usd_per_hour)}, {saved:.0%} less."
    return f"{text}; splitting by request length saves nothing."


def _nearest(step: Step) -> str:
    """The fleet that misses the limits by least, and what it reaches of the one that it misses most."""
    option = min(step.options, key=lambda option: option.worst_violation)
    found = [(latency(option.fleet.metrics, slo.flat_name), slo) for slo in step.slos]
    reached = [(ms / slo.limit, ms, slo) for ms, slo in found if ms is not None]
    if len(reached) < len(step.slos):
        return "the table says what each reaches"
    _, ms, slo = max(reached, key=lambda entry: entry[0])
    return f"{hardware(option.config)} comes nearest, with {slo.flat_name} {three_digits(ms)} where {slo} is asked"


def _row(option: FleetOption) -> list[str]:
    cost, metrics = option.fleet.cost, option.fleet.metrics
    latencies = ["" if (found := latency(metrics, name)) is None else three_digits(found) for name in _LATENCIES]
    million = three_digits(cost.usd_per_million_tokens.value)
    verdict = "met" if option.holds else "missed"
    source = option.basis.split(":")[0]
    return [hardware(option.config), str(cost.replicas), usd(option.usd_per_hour), f"${million}",
            *latencies, verdict, source]  # fmt: skip


def _served(shares: Sequence[float], edges: Sequence[int]) -> str:
    parts = []
    for bucket, share in enumerate(shares):
        if share > 0.005:
            start = edges[bucket - 1] + 1 if bucket else 1
            parts.append(f"{share:.0%}: {start:,}-{edges[bucket]:,}")
    return ", ".join(parts)


def _plain(steps: Sequence[Step]) -> dict[str, Any]:
    """For --json."""
    step = asked(steps)
    return {
        "provenance": "predicted",
        "fleets": [_plain_option(option) for option in step.options],
        "mixed": None if step.mixed is None else _plain_mixed(step.mixed),
        "other_limits": [
            {"limits": other.limits,
             "usd_per_hour": None if other.cheapest is None else other.cheapest.usd_per_hour,
             "mixed_usd_per_hour": None if other.held_mix is None else other.held_mix.usd_per_hour,
             "by_sku": {o.config.hardware.sku: o.usd_per_hour if o.holds else None for o in other.options}}
            for other in steps if other is not step
        ],
    }  # fmt: skip


def _plain_option(option: FleetOption) -> dict[str, Any]:
    known = option.provenance
    return {
        "config": option.config.model_dump(mode="json"),
        "cost": option.fleet.cost.model_dump(mode="json"),
        "holds": option.holds,
        "metrics": option.fleet.metrics.flat(),
        "basis": option.basis,
        "source": str(known.source),
        "median_step_error": known.median_error,
        "notes": list(option.fleet.notes),
    }


def _plain_mixed(mixed: MixedFleet) -> dict[str, Any]:
    return {
        "usd_per_hour": mixed.usd_per_hour,
        "holds": mixed.holds,
        "bucket_ends_tokens": list(mixed.edges),
        "pools": [
            {"config": pool.config.model_dump(mode="json"), "replicas": pool.replicas,
             "usd_per_hour": pool.usd_per_hour, "shares": list(pool.shares)}
            for pool in mixed.pools
        ],
    }  # fmt: skip
