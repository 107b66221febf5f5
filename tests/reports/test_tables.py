"""trials.parquet and pareto.parquet: flat rows that notebooks can use as they are."""

from pathlib import Path

import pandas as pd
import pytest
import study_cases

from engine.config import SpeculativeConfig
from optimizer.results import StudyResult
from reports.tables import trials_frame, write_tables


def test_one_row_a_trial_with_flat_columns(study: StudyResult) -> None:
    frame = trials_frame(study)
    assert list(frame["number"]) == list(range(11))
    best = frame[frame["is_recommended"]].iloc[0]
    assert best["p95_e2el_ms"] == pytest.approx(812)
    assert best["p95_e2el_ms_low"] < 812
    assert best["config.quantization.weights"] == "int8"
    assert best["config.speculative_config.num_speculative_tokens"] == 4
    assert not any(isinstance(value, dict | list) for value in best)


def test_the_front_is_the_same_table_with_fewer_rows(study: StudyResult, tmp_path: Path) -> None:
    trials, pareto = (pd.read_parquet(path) for path in write_tables(study, tmp_path))
    assert tuple(pareto["number"]) == study.front
    assert list(pareto.columns) == list(trials.columns)


def test_odd_studies_make_tables_too(any_study: StudyResult, tmp_path: Path) -> None:
    trials, pareto = (pd.read_parquet(path) for path in write_tables(any_study, tmp_path))
    assert len(trials) == len(any_study.trials)
    assert len(pareto) == len(any_study.front)


def test_auto_stands_beside_numbers(study: StudyResult, tmp_path: Path) -> None:
    speculation = SpeculativeConfig(method="suffix", num_speculative_tokens="auto")
    first, *others = study.trials
    adaptive = first.model_copy(update={"config": first.config.model_copy(update={"speculative_config": speculation})})
    trials, _ = write_tables(study.model_copy(update={"trials": (adaptive, *others)}), tmp_path)
    assert {"auto", "4"} <= set(pd.read_parquet(trials)["config.speculative_config.num_speculative_tokens"].dropna())


def test_a_refused_trial_keeps_its_reason(study: StudyResult) -> None:
    row = trials_frame(study).set_index("number").loc[4]
    assert row["state"] == "refused"
    assert row["reason"] == study_cases.trials()[4].reason
    assert pd.isna(row["p95_e2el_ms"])
