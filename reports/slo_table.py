"""Your limits: met or missed, in the search and on held-out traffic, and what moving them would buy.

Does not know how limits are parsed or judged.
"""

from __future__ import annotations

from optimizer.results import SloOutcome, StudyResult
from reports.comparison import recommended_trial
from reports.measured import slo_value
from reports.table import NOTHING, Cell, Column, Table


def slo_table(study: StudyResult) -> Table | None:
    """Each limit on the recommended trial; None without limits."""
    trial = recommended_trial(study)
    if trial is None or not trial.slos:
        return None
    checked = {o.slo: o for o in study.verification.slos} if study.verification else {}
    columns = (
        Column(name="Limit"),
        Column(name="In the search", numeric=True),
        Column(name="On held-out traffic", numeric=True),
        Column(name="Verdict"),
    )
    rows = tuple(_row(outcome, checked.get(outcome.slo)) for outcome in trial.slos)
    has_quality = any(outcome.slo.startswith("quality") for outcome in trial.slos)
    note = "Limits on quality are judged by the lower end of its interval." if has_quality else ""
    return Table(title="Your limits", columns=columns, rows=rows, note=note)


def _row(searched: SloOutcome, later: SloOutcome | None) -> tuple[Cell, ...]:
    missed = max(o.violation for o in (searched, later) if o)
    return (
        Cell(text=searched.slo),
        Cell(text=slo_value(searched)),
        Cell(text=slo_value(later)) if later else NOTHING,
        Cell(text="met", tone="good") if missed <= 0 else Cell(text=_miss(missed), tone="bad"),
    )


def _miss(violation: float) -> str:
    return f"missed by {violation:.1%}" if violation < 100 else "missed"


def advice_table(study: StudyResult) -> Table | None:
    """What moving one limit would buy; None when there is nothing to say."""
    advice = study.recommendation.advice if study.recommendation else ()
    if not advice:
        return None
    columns = (
        Column(name="Limit"),
        Column(name="Would have to be"),
        Column(name="Trial", numeric=True),
        Column(name="What it buys"),
    )
    rows = tuple(
        (
            Cell(text=a.slo),
            Cell(text=a.limit_needed),
            Cell(text=str(a.trial), sort=a.trial),
            Cell(text=a.text),
        )
        for a in advice
    )
    return Table(title="What moving a limit would buy", columns=columns, rows=rows)
