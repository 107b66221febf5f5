"""Tables over trials: all of them, what speculation and caching gained, and what was refused or failed.

Does not know how they are drawn.
"""

from __future__ import annotations

from optimizer.results import StudyResult, TrialResult, TrialState, known_by
from reports.comparison import chosen_word, recommended_trial
from reports.measured import COST, LATENCY, QUALITY, is_usable, number_cell, slo_value
from reports.numbers import duration, three_digits
from reports.table import NOTHING, Cell, Column, Table

_METRICS = (LATENCY, "p95_ttft_ms", "p95_tpot_ms", QUALITY, COST)
_HEADS = ("p95 end to end, ms", "p95 first token, ms", "p95 per token, ms", "Quality", "$ per M tokens")


def label_of(study: StudyResult, trial: TrialResult) -> str:
    return trial.config.label(study.default.config)


def trials_table(study: StudyResult) -> Table:
    """Every trial, in order of number."""
    columns = (
        Column(name="Trial", numeric=True),
        Column(name="Configuration", means="what differs from the default"),
        Column(name="Outcome"),
        *(Column(name=head, numeric=True) for head in _HEADS),
        Column(name="Front", means=f"nothing {known_by(study.trials)} is better in quality, latency and cost at once"),
        Column(name="How", means="measured on an engine or predicted by a simulator, and what proposed it"),
        Column(name="Took", numeric=True),
    )
    rows = tuple(_trial_row(study, trial) for trial in study.trials)
    return Table(title="Every trial", columns=columns, rows=rows, note="Numbers in brackets are 95% intervals.")


def _trial_row(study: StudyResult, trial: TrialResult) -> tuple[Cell, ...]:
    metrics = [number_cell(trial, metric) if is_usable(trial) else NOTHING for metric in _METRICS]
    chosen = recommended_trial(study)
    is_chosen = chosen is not None and chosen.number == trial.number
    label = label_of(study, trial)
    return (
        Cell(text=str(trial.number), sort=trial.number),
        Cell(
            text=f"{label} ({chosen_word(study)})" if is_chosen and trial.number else label,
            tone="strong" if is_chosen else "",
        ),
        outcome_cell(trial),
        *metrics,
        Cell(text="yes" if trial.number in study.front else "", sort=float(trial.number not in study.front)),
        _how_cell(trial),
        Cell(text=duration(trial.duration_s), sort=trial.duration_s) if trial.duration_s else NOTHING,
    )


def _how_cell(trial: TrialResult) -> Cell:
    told = [trial.provenance.value] if trial.state is TrialState.COMPLETE else []
    return Cell(text=", ".join([*told, *([trial.origin] if trial.origin else [])]) or "–", tone="muted")


def outcome_cell(trial: TrialResult) -> Cell:
    """A few words: done, meets limits, misses a limit, void, failed, refused; the reason is the hover title."""
    if trial.state is TrialState.STOPPED:
        return Cell(text="stopped early", tone="bad", title=trial.reason)
    if trial.state is not TrialState.COMPLETE:
        kind = trial.failure.value.replace("_", " ") if trial.failure else ""
        text = "refused" if trial.state is TrialState.REFUSED else f"failed: {kind}" if kind else "failed"
        return Cell(text=text, tone="bad", title=trial.reason)
    if trial.reason:
        return Cell(text="void", tone="bad", title=trial.reason)
    missed = [f"{o.slo}: {slo_value(o)}" for o in trial.slos if o.violation > 0]
    if missed:
        return Cell(text="misses a limit", tone="bad", title="; ".join(missed))
    return Cell(text="meets limits", tone="good") if trial.slos else Cell(text="done")


def gains_table(study: StudyResult) -> Table | None:
    """Acceptance length and cache hits of the trials that have them; None when no trial has."""
    found = [
        t for t in study.trials if is_usable(t) and t.metrics.keys() & {"acceptance_length", "prefix_cache_hit_rate"}
    ]
    if not found:
        return None
    columns = (
        Column(name="Trial", numeric=True),
        Column(name="Configuration"),
        Column(
            name="Acceptance length",
            numeric=True,
            means="tokens gained per step of the big model, the sure one included; 1 means guessing gained nothing",
        ),
        Column(name="Guesses kept", numeric=True, means="tokens accepted per step over the most it may guess"),
        Column(name="Prefix cache hits", numeric=True, means="share of prompt tokens that were already known"),
    )
    rows = tuple(_gain_row(study, trial) for trial in found)
    return Table(title="What speculation and caching gained", columns=columns, rows=rows)


def _gain_row(study: StudyResult, trial: TrialResult) -> tuple[Cell, ...]:
    length, hits = trial.metrics.get("acceptance_length"), trial.metrics.get("prefix_cache_hit_rate")
    speculation = trial.config.speculative_config
    most = speculation.num_speculative_tokens if speculation else "auto"
    accepted = (length - 1) / most if length and most != "auto" else None
    return (
        Cell(text=str(trial.number), sort=trial.number),
        Cell(text=label_of(study, trial)),
        Cell(text=three_digits(length), sort=length) if length else NOTHING,
        Cell(text=f"{accepted:.1%}", sort=accepted) if accepted is not None else NOTHING,
        Cell(text=f"{hits:.1%}", sort=hits) if hits is not None else NOTHING,
    )


def problems_table(study: StudyResult) -> Table | None:
    """What was refused, failed or void, and why; None when nothing was."""
    found = [trial for trial in study.trials if not is_usable(trial)]
    if not found:
        return None
    columns = (
        Column(name="Trial", numeric=True),
        Column(name="Configuration"),
        Column(name="Outcome"),
        Column(name="Reason"),
    )
    rows = tuple(
        (
            Cell(text=str(trial.number), sort=trial.number),
            Cell(text=label_of(study, trial)),
            outcome_cell(trial),
            Cell(text=trial.reason or "no reason was given"),
        )
        for trial in found
    )
    stopped = any(trial.state is TrialState.STOPPED for trial in found)
    title = "Stopped early, refused, failed or void" if stopped else "Refused, failed or void"
    return Table(title=title, columns=columns, rows=rows)
