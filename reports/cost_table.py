"""What the recorded load costs on the default and the recommended config, and what that assumes.

Does not know how capacity is measured or where prices come from.
"""

from __future__ import annotations

from optimizer.results import Cost, StudyResult, TrialResult
from reports.comparison import chosen_word, recommended_trial
from reports.measured import money
from reports.numbers import three_digits, with_interval
from reports.table import Cell, Column, Table

_BASIS = {
    "saturation": "all requests at once: the most it can do",
    "slo bisection": "the highest rate at which the limits hold",
    "simulated saturation": "predicted: the most it can do",
    "simulated slo bisection": "predicted: the highest rate at which the limits hold",
    "simulated peaks": "predicted: its share of the load when the fewest replicas hold the recorded peaks",
    "simulated half load": "predicted: half of the most it can do, as no number of replicas meets every limit",
}


def cost_table(study: StudyResult) -> Table | None:
    """None when no price or no capacity is known."""
    chosen = recommended_trial(study)
    trials = [study.default, *([chosen] if chosen and chosen.number else [])] if study.trials else []
    priced = [(trial, trial.cost) for trial in trials if trial.cost]
    if not priced:
        return None
    columns = (
        Column(name="Configuration"),
        Column(name="$ per million tokens", numeric=True, means="input and output tokens together"),
        Column(name="$ per hour", numeric=True),
        Column(name="Replicas", numeric=True, means="copies needed for the recorded load"),
        Column(name="Capacity, requests/s", numeric=True, means="what one replica holds"),
        Column(name="Utilisation", numeric=True, means="recorded rate over capacity"),
    )
    rows = tuple(_row(study, trial, cost) for trial, cost in priced)
    return Table(title="Cost of the recorded load", columns=columns, rows=rows, note=assumptions(priced[-1][1]))


def assumptions(cost: Cost) -> str:
    """Price, its date and source, and what capacity means, in sentences."""
    sku = cost.sku if cost.sku_count == 1 else f"{cost.sku_count} x {cost.sku}"
    basis = _BASIS.get(cost.capacity_basis, "")
    return (
        f"One replica is {sku}, at ${three_digits(cost.usd_per_sku_hour)} an hour each "
        f"(price of {cost.price_as_of}, from {cost.price_source}). "
        f"Capacity by {cost.capacity_basis}{f', {basis}' if basis else ''}. "
        "Dollars per million tokens assume that a replica is kept busy; dollars per hour are for the recorded load."
    )


def _row(study: StudyResult, trial: TrialResult, cost: Cost) -> tuple[Cell, ...]:
    name = "default" if trial.number == 0 else f"{chosen_word(study)}: {trial.config.label(study.default.config)}"
    return (
        Cell(text=name),
        Cell(text=money(cost.usd_per_million_tokens), sort=cost.usd_per_million_tokens.value),
        Cell(text=f"${three_digits(cost.usd_per_hour)}", sort=cost.usd_per_hour),
        Cell(text=f"{cost.replicas:,}", sort=cost.replicas),
        Cell(text=with_interval(cost.capacity_rps), sort=cost.capacity_rps.value),
        Cell(text=f"{cost.utilisation:.0%}", sort=cost.utilisation),
    )
