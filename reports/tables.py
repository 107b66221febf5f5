"""`trials.parquet` and `pareto.parquet`: one flat row per trial, for notebooks and spreadsheets.

Does not know how the rows are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from optimizer.results import StudyResult, TrialResult
from reports.trial_row import trial_metrics
from reports.whole_file import replaced

TRIALS = "trials.parquet"
PARETO = "pareto.parquet"


def write_tables(study: StudyResult, directory: Path) -> list[Path]:
    """Both tables; each is replaced whole."""
    rows = [_row(study, trial) for trial in study.trials]
    front = [row for row in rows if row["on_front"]]
    return [_write(rows, directory / TRIALS), _write(front, directory / PARETO, like=rows)]


def trials_frame(study: StudyResult) -> pd.DataFrame:
    """One row per trial, in order of number; config fields are `config.<name>`."""
    return _frame([_row(study, trial) for trial in study.trials])


def _row(study: StudyResult, trial: TrialResult) -> dict[str, Any]:
    return {
        "number": trial.number,
        "label": trial.config.label(study.default.config),
        "state": trial.state.value,
        "provenance": trial.provenance.value,
        "origin": trial.origin,
        "is_default": trial.number == 0,
        "is_recommended": study.recommendation is not None and trial.number == study.recommendation.trial,
        "on_front": trial.number in study.front,
        "feasible": trial.feasible,
        "failure": trial.failure.value if trial.failure else None,
        "reason": trial.reason or None,
        "started_at": trial.started_at or None,
        "duration_s": trial.duration_s,
        "quality_class": trial.config.quality_class(),
        "config_fingerprint": trial.config.fingerprint(),
        **trial_metrics(trial),
        **{f"config.{name}": value for name, value in trial.config.flat().items()},
    }


def _write(rows: list[dict[str, Any]], path: Path, *, like: list[dict[str, Any]] | None = None) -> Path:
    """Write `rows` with the columns of `like`, so that a subset has the whole table's schema."""
    frame = _frame(like or rows)
    subset = frame[frame["number"].isin([row["number"] for row in rows])] if len(frame) else frame
    with replaced(path) as temporary:
        subset.to_parquet(temporary, index=False)
    return path


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows).sort_values("number", ignore_index=True) if rows else pd.DataFrame({"number": []})
    if {"config.speculative_config", "config.speculative_config.method"} <= set(frame):
        frame = frame.drop(columns="config.speculative_config")  # only says that the dotted fields are absent
    mixed = [name for name, column in frame.items() if {str} < set(map(type, column.dropna()))]  # "auto" beside numbers
    for name in mixed:
        frame[name] = frame[name].map(str, na_action="ignore")
    return frame.convert_dtypes()
