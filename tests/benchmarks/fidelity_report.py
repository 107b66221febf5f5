"""What `simulator_fidelity.py` says of its cells: errors beside the noise of measuring, rank agreement, pruning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

METRICS = ("mean_e2el_ms", "p99_e2el_ms", "mean_ttft_ms", "mean_itl_ms", "mean_tpot_ms")
TARGETS = {"mean_e2el_ms": 0.05, "p99_e2el_ms": 0.08, "mean_ttft_ms": 0.10, "mean_itl_ms": 0.04}
KEPT_SHARES = (0.1, 0.25, 0.5)
_KINDS = {"predicted": "predicted", "own_steps": "predicted from its own steps", "measured_again": "measured again"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A config at a load: measured in every round that is there, and predicted.

    `from_own_steps` has, for every round, what the simulator says when it is calibrated on that very replay, and
    `step_drift` the time of its steps over what the calibration says of the same steps; None without its step log.
    """

    config: str
    load: float
    calibrating: bool
    measured: tuple[dict[str, float], ...]
    predicted: dict[str, float]
    from_own_steps: tuple[dict[str, float] | None, ...]
    step_drift: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Capacities:
    """Input plus output tokens a second of one config."""

    measured: tuple[float, ...]
    predicted: float


def summary(cells: Sequence[Cell], capacities: Mapping[str, Capacities]) -> dict[str, Any]:
    """Everything that is printed about the cells, as JSON."""
    held_out = [cell for cell in cells if not cell.calibrating]
    loads = sorted({cell.load for cell in cells})
    parts = {"all": held_out} | {f"{load:.0%}": [cell for cell in held_out if cell.load == load] for load in loads}
    found = capacities.values()
    again = [c.measured[1] / c.measured[0] - 1 for c in found if len(c.measured) > 1]
    return {
        "configs": len(capacities),
        "cells": len(cells),
        "calibrating_cells": len(cells) - len(held_out),
        "errors": {name: {metric: errors(part, metric) for metric in METRICS} for name, part in parts.items()},
        "capacity": {
            "predicted": median_interval([c.predicted / value - 1 for c in found for value in c.measured]),
            "measured_again": median_interval(again),
        },
        "step_drift": median_interval([d - 1 for cell in held_out for d in cell.step_drift if d is not None]),
        "kendall_tau": taus(cells, capacities, loads),
        "pareto_kept": {f"{share:.0%}": pareto_kept(cells, capacities, share, loads[0]) for share in KEPT_SHARES},
        "by_cell": [
            {"config": c.config, "load": c.load, "calibrating": c.calibrating,
             "measured": c.measured, "predicted": c.predicted, "from_own_steps": c.from_own_steps,
             "step_drift": c.step_drift}
            for c in cells
        ],
        "by_config": {name: {"measured": c.measured, "predicted": c.predicted} for name, c in capacities.items()},
    }  # fmt: skip


def errors(cells: Sequence[Cell], metric: str) -> dict[str, Any]:
    """Median |predicted / measured - 1| over cells and rounds, and the same of one round against the other.

    "own_steps" is the simulator calibrated on each replay itself: what is left is scheduler, arrivals and overhead.
    """
    off = [cell.predicted[metric] / found[metric] - 1 for cell in cells for found in cell.measured]
    noise = [cell.measured[1][metric] / cell.measured[0][metric] - 1 for cell in cells if len(cell.measured) > 1]
    own = [
        said[metric] / found[metric] - 1
        for cell in cells
        for said, found in zip(cell.from_own_steps, cell.measured, strict=True)
        if said is not None
    ]
    kinds = {"predicted": off, "own_steps": own, "measured_again": noise}
    return {kind: median_interval(values) for kind, values in kinds.items()}


def median_interval(relative: Sequence[float]) -> dict[str, float]:
    """Median of absolute values with a 95% bootstrap interval over cells, the signed median, and n."""
    found = np.array([value for value in relative if not math.isnan(value)])
    if not len(found):
        return {"n": 0}
    draws = np.random.default_rng(0).choice(np.abs(found), (2000, len(found)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return {
        "median": float(np.median(np.abs(found))), "low": float(low), "high": float(high),
        "signed": float(np.median(found)), "n": len(found),
    }  # fmt: skip


def taus(
    cells: Sequence[Cell], capacities: Mapping[str, Capacities], loads: Sequence[float]
) -> dict[str, dict[str, float]]:
    """Rank agreement over configs, predicted against the first round, and the second round against the first."""
    rows = {"capacity": [(c.predicted, *c.measured) for c in capacities.values()]}
    for load in loads:
        here = [cell for cell in cells if cell.load == load and cell.measured]
        rows[f"mean E2EL at {load:.0%}"] = [
            (c.predicted["mean_e2el_ms"], *(m["mean_e2el_ms"] for m in c.measured)) for c in here
        ]
    found = {}
    for name, table in rows.items():
        twice = [row for row in table if len(row) > 2]
        found[name] = {"predicted": float(kendalltau([r[0] for r in table], [r[1] for r in table]).statistic)}
        if len(twice) > 2:
            found[name]["measured_again"] = float(kendalltau([r[2] for r in twice], [r[1] for r in twice]).statistic)
    return found


def pareto_kept(
    cells: Sequence[Cell], capacities: Mapping[str, Capacities], share: float, load: float
) -> dict[str, float]:
    """Of the configs on the true front (mean E2EL at a load, capacity), the share kept among the predicted best;
    of those that could be kept, where fewer are kept than are on the front.
    """
    low = {cell.config: cell for cell in cells if cell.load == load and cell.measured}
    true = {n: (c.measured[0]["mean_e2el_ms"], -capacities[n].measured[0]) for n, c in low.items()}
    guess = {n: (c.predicted["mean_e2el_ms"], -capacities[n].predicted) for n, c in low.items()}
    count = math.ceil(share * len(guess))
    kept: list[str] = []
    while len(kept) < count:
        kept += front({name: point for name, point in guess.items() if name not in kept})
    best, wanted = kept[:count], front(true)
    return {"kept": count, "front": len(wanted), "share": len(set(best) & set(wanted)) / min(count, len(wanted))}


def front(points: dict[str, tuple[float, float]]) -> list[str]:
    """Names that nobody is at least as good as in both and better in one."""
    return [
        name
        for name, (x, y) in points.items()
        if not any(a <= x and b <= y and (a, b) != (x, y) for a, b in points.values())
    ]


def print_summary(found: Mapping[str, Any]) -> None:
    """As tables for people."""
    console = Console(width=170)
    table = Table("load", "x", *METRICS, title="median |x / measured - 1| [95%], median, n")
    for load, by_metric in found["errors"].items():
        for kind, words in _KINDS.items():
            table.add_row(load, words, *(shown(by_metric[name][kind]) for name in METRICS))
    table.add_row("target", "", *(f"{TARGETS[name]:.0%}" if name in TARGETS else "" for name in METRICS))
    console.print(table)
    capacity = found["capacity"]
    console.print(f"capacity: {shown(capacity['predicted'])}; measured again {shown(capacity['measured_again'])}")
    console.print(f"time of a replay's steps over the calibration's for the same steps: {shown(found['step_drift'])}")
    for name, tau in found["kendall_tau"].items():
        console.print(f"Kendall tau, {name}: " + ", ".join(f"{who} {value:.2f}" for who, value in tau.items()))
    for share, kept in found["pareto_kept"].items():
        what = (
            f"the best {share} predicted ({kept['kept']}) hold {kept['share']:.0%} of the true front ({kept['front']})"
        )
        console.print(what)


def shown(found: Mapping[str, float]) -> str:
    if not found["n"]:
        return "not measured"
    return f"{found['median']:.1%} [{found['low']:.1%}, {found['high']:.1%}] {found['signed']:+.1%} n={found['n']:.0f}"
