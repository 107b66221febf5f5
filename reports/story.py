"""`Story`: everything a report tells, in order, as sentences and tables; Markdown and HTML only draw it.

Does not know markup.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from optimizer.results import StudyResult
from reports.caveats import caveats, provenance
from reports.comparison import Pair, chosen_word, comparison_table, pairs, recommended_trial
from reports.config_words import changes
from reports.cost_table import cost_table
from reports.deployment import BEST, portable
from reports.deployment_comment import how_to_serve
from reports.headline import Fact, Headline, facts, headline
from reports.numbers import three_digits
from reports.quality_table import quality_table
from reports.slo_table import advice_table, slo_table
from reports.table import Cell, Column, Table
from reports.trial_tables import gains_table, problems_table, trials_table

_SUMMARY_WORDS = {
    "requests": "requests in the search",
    "requests_per_second": "recorded rate, requests/s",
    "tokens_per_request": "tokens per request, in and out",
    "heldout_requests": "requests held out for the check",
}
_CHANGES_TITLES = {"infeasible": "The nearest configuration", "not held": "What the search would have changed"}


@dataclass(frozen=True, kw_only=True)
class Story:
    """Tables that do not apply are None; lists may be empty."""

    title: str
    asked: str
    headline: Headline
    facts: list[Fact]
    chosen: str  # what to call the trial that is compared with the default: "recommended" or "nearest"
    reasons: tuple[str, ...]
    changes: Table | None
    pairs: list[Pair]
    comparison: Table | None
    slos: Table | None
    advice: Table | None
    trials: Table | None
    gains: Table | None
    problems: Table | None
    quality: Table | None
    cost: Table | None
    provenance: str
    workload: list[tuple[str, str]]
    environment: list[tuple[str, str]]
    commands: list[str]
    caveats: list[str]


def tell(study: StudyResult, directory: Path | None = None) -> Story:
    """The study as a story; `directory` is where its files lie, `runs/<name>` unless told."""
    best = portable((directory or Path("runs") / study.name) / BEST)
    found, top = pairs(study), headline(study)
    return Story(
        title=f"{study.workload_name}: which settings serve it best",
        asked=_asked(study),
        headline=top,
        facts=facts(study),
        chosen=chosen_word(study),
        reasons=study.recommendation.reasons if study.recommendation else (),
        changes=_changes(study, title=_CHANGES_TITLES.get(top.status, "What to change")),
        pairs=found,
        comparison=comparison_table(study) if found else None,
        slos=slo_table(study),
        advice=advice_table(study),
        trials=trials_table(study) if study.trials else None,
        gains=gains_table(study),
        problems=problems_table(study),
        quality=quality_table(study),
        cost=cost_table(study),
        provenance=provenance(study),
        workload=_workload(study),
        environment=list(study.environment.items()),
        commands=_commands(study, best),
        caveats=caveats(study),
    )


def _asked(study: StudyResult) -> str:
    limits = f" within {'; '.join(study.slos)}" if study.slos else ""
    return f"Asked for: {study.objective}{limits}."


def _changes(study: StudyResult, *, title: str) -> Table | None:
    trial = recommended_trial(study)
    found = changes(trial.config, study.default.config) if trial else []
    if not found:
        return None
    columns = (
        Column(name="Setting"),
        Column(name="Default"),
        Column(name=chosen_word(study).capitalize()),
        Column(name="What it does"),
    )
    rows = tuple(
        (
            Cell(text=change.name, title=change.field),
            Cell(text=change.default),
            Cell(text=change.recommended, tone="strong"),
            Cell(text=change.does, tone="muted"),
        )
        for change in found
    )
    return Table(title=title, columns=columns, rows=rows, note="All other settings stay as they are.")


def _workload(study: StudyResult) -> list[tuple[str, str]]:
    told = [("name", study.workload_name)]
    for key, value in study.workload_summary.items():
        written = value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else three_digits(value)
        told.append((_SUMMARY_WORDS.get(key, key.replace("_", " ")), written))
    return [*told, ("fingerprint", study.workload_fingerprint)]


def _commands(study: StudyResult, best: str) -> list[str]:
    """What to type; WORKLOAD stands for the file, whose path a report does not know."""
    slos = "".join(f" --slo {shlex.quote(slo)}" for slo in study.slos)
    search = (
        f"fopt run WORKLOAD --objective {shlex.quote(study.objective)}{slos} --space {shlex.quote(study.space_name)}"
    )
    found = [f"{search} --seed {study.seed}"]
    if study.recommendation is None:
        return found
    config = study.default.config
    if config.engine == "simulated":
        again = f"{found[0]} --engine simulated --model {shlex.quote(config.model)}  # and --skus, --measured as given"
        return [how_to_serve(study.trial(study.recommendation.trial), best), again]
    if config.engine == "endpoint":
        own = search.removesuffix(f" --space {shlex.quote(study.space_name)}")
        url = shlex.quote(str(config.engine_args.get("url")))
        return [
            f"{own} --engine endpoint --url {url}",
            f"{own} --model DIR  # whether fopt's own engine would do better",
        ]
    engine = " --engine command" if config.engine == "command" else ""
    best = shlex.quote(best)
    return [f"fopt serve {best}", found[0] + engine, f"fopt verify {best} WORKLOAD"]
