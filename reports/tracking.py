"""`Tracker`: keeps a study's trials in MLflow, so that they can be compared in its UI.

Does not import MLflow (a process of its own writes) and never fails a study: what goes wrong is told once and kept in
`problem`. The study's own folder stays the record; MLflow is a view of it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow.parquet as pq

from engine.config import EngineConfig
from optimizer.results import StudyResult, TrialResult, TrialState
from reports.tracking_files import QUIET_MLFLOW, WRITER_LOG
from reports.tracking_messages import Answer, FinishStudy, LogTrial, StartStudy
from reports.tracking_ui import ui_command, ui_url
from reports.trial_row import trial_metrics
from workloads.records import RECORD_SCHEMA

__all__ = ["Tracker", "ui_command", "ui_url"]

TRIAL_FILES = ("config.yaml", "result.json", "engine.log")
STUDY_FILES = ("best.yaml", "best.vllm.yaml", "report.html", "report.md", "pareto.parquet", "trials.parquet")
_RECORDS = "records.parquet"
_OPEN_S = 120.0  # a new database's migrations on a busy machine
_WRITE_S = 30.0

logger = logging.getLogger(__name__)


class Tracker:
    """A context manager around the writer process; all methods may be called again for the same study or trial."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        self.problem = ""  # why nothing is tracked any more
        self._writer: subprocess.Popen[bytes] | None = None
        self._opened = False
        self._default: EngineConfig | None = None
        self._started = False

    def __enter__(self) -> Self:
        self.prepare()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def prepare(self) -> None:
        """Start the writer, which opens (and the first time makes) the database meanwhile; returns at once."""
        if self._writer is None and not self.problem:
            try:
                self._writer = _start_writer(self.runs_dir)
            except OSError as error:
                self._give_up(str(error))

    def start_study(
        self,
        *,
        name: str,
        default: EngineConfig,
        workload_name: str,
        workload_fingerprint: str,
        objective: str,
        slos: Sequence[str],
        space_name: str,
        seed: int,
        environment: Mapping[str, str] = {},
    ) -> None:
        """Find or create the study's parent run. Waits until the database is open, so that no replay shares its CPU."""
        self.prepare()
        self._default = default
        params = {
            "objective": objective,
            "slos": "; ".join(slos),
            "space": space_name,
            "seed": str(seed),
            "workload": workload_name,
            "workload_fingerprint": workload_fingerprint,
        }
        tags = {f"environment.{key}": value for key, value in environment.items()}
        self._send(StartStudy(experiment=workload_name, study=name, params=params, tags=tags))
        self._started = True

    def log_trial(self, result: TrialResult, trial_dir: Path | None = None) -> None:
        """Write a trial and the files of its folder that hold no prompts; quick, and safe to repeat."""
        assert self._started, "start_study comes first"
        content = result.model_dump_json()
        started_ms = _milliseconds(result.started_at)
        message = LogTrial(
            number=result.number,
            digest=hashlib.sha256(content.encode()).hexdigest(),
            name=self._trial_name(result),
            params=_params(result),
            metrics=trial_metrics(result),
            tags=_tags(result),
            files=tuple(_trial_files(trial_dir)) if trial_dir else (),
            started_ms=started_ms,
            ended_ms=started_ms + round(result.duration_s * 1000),
            succeeded=result.state is TrialState.COMPLETE and not result.reason,
        )
        self._send(message)

    def finish_study(self, study: StudyResult, directory: Path | None = None) -> None:
        """Write what was found to the parent run, with the reports in `directory`."""
        assert self._started, "start_study comes first"
        files = tuple(_existing(directory, STUDY_FILES)) if directory else ()
        succeeded = study.recommendation is not None and not study.interrupted
        self._send(
            FinishStudy(metrics=_study_metrics(study), tags=_study_tags(study), files=files, succeeded=succeeded)
        )

    def close(self) -> None:
        """Let the writer end; what was sent is written."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        assert writer.stdin is not None
        assert writer.stdout is not None
        try:
            writer.stdin.close()
            writer.wait(5 if self._opened else 0.1)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            writer.kill()
            writer.wait()
        writer.stdout.close()

    def _trial_name(self, result: TrialResult) -> str:
        default = self._default or EngineConfig(model=result.config.model)
        return f"trial {result.number:02d} · {result.config.label(default)}"

    def _send(self, message: StartStudy | LogTrial | FinishStudy) -> None:
        writer = self._writer
        if writer is None or self.problem:
            return
        if not self._opened:
            self._opened = self._await_answer(writer, _OPEN_S)
        if not self._opened:
            return
        assert writer.stdin is not None
        try:
            writer.stdin.write(message.model_dump_json().encode() + b"\n")
            writer.stdin.flush()
        except BrokenPipeError:
            self._give_up("the process that writes to MLflow ended")
            return
        self._await_answer(writer, _WRITE_S)

    def _await_answer(self, writer: subprocess.Popen[bytes], timeout_s: float) -> bool:
        line = _read_line(writer, timeout_s)
        if line is None:
            self._give_up(f"MLflow did not answer in {timeout_s:.0f} s")
            return False
        if not line:
            self._give_up("the process that writes to MLflow ended")
            return False
        error = Answer.model_validate_json(line).error
        if error:
            self._give_up(error)
        return not error

    def _give_up(self, problem: str) -> None:
        self.problem = problem
        log = self.runs_dir / WRITER_LOG
        logger.warning("trials are no longer tracked in MLflow: %s (see %s). The study goes on", problem, log)


def _start_writer(runs_dir: Path) -> subprocess.Popen[bytes]:
    """In a process group of its own, so that Ctrl-C reaches us alone; it ends with our end of the pipe."""
    runs_dir.mkdir(parents=True, exist_ok=True)
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, **QUIET_MLFLOW, "PYTHONPATH": os.pathsep.join(_paths(root))}
    with (runs_dir / WRITER_LOG).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "reports.tracking_writer", str(runs_dir.absolute())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            process_group=0,
        )


def _paths(root: str) -> list[str]:
    inherited = os.environ.get("PYTHONPATH")
    return [root, inherited] if inherited else [root]


def _read_line(writer: subprocess.Popen[bytes], timeout_s: float) -> bytes | None:
    """One line, empty at the pipe's end, None when none came in time. Answers are written whole and one at a time."""
    assert writer.stdout is not None
    deadline = time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([writer.stdout], [], [], left)
        if ready:
            return writer.stdout.readline()
    return None


def _params(result: TrialResult) -> dict[str, str]:
    return {name: "-" if value is None else str(value) for name, value in result.config.flat().items()}


def _tags(result: TrialResult) -> dict[str, str]:
    tags = {
        "state": result.state.value,
        "feasible": "yes" if result.feasible else "no",
        "provenance": result.provenance.value,
        "origin": result.origin,
        "failure": result.failure.value if result.failure else "",
        "reason": result.reason,
        "quality_class": result.config.quality_class(),
        "config": result.config.fingerprint(),
    }
    return {name: value for name, value in tags.items() if value}


def _trial_files(directory: Path) -> Iterable[str]:
    """Allowed by name; records only when every column is one that holds no text of a request."""
    yield from _existing(directory, TRIAL_FILES)
    records = directory / _RECORDS
    if records.exists() and set(pq.read_schema(records).names) <= set(RECORD_SCHEMA.names):
        yield str(records.absolute())


def _existing(directory: Path, names: Iterable[str]) -> Iterable[str]:
    return (str((directory / name).absolute()) for name in names if (directory / name).exists())


def _study_metrics(study: StudyResult) -> dict[str, float]:
    found = {"trials": float(len(study.trials)), "duration_s": study.duration_s}
    if study.recommendation:
        found |= trial_metrics(study.trial(study.recommendation.trial))
        found["recommended_trial"] = float(study.recommendation.trial)
    for comparison in study.verification.comparisons if study.verification else ():
        found[f"times_better_{comparison.metric}"] = comparison.improvement.value
    return found


def _study_tags(study: StudyResult) -> dict[str, str]:
    tags = {"interrupted": "yes" if study.interrupted else "no", "front": json.dumps(list(study.front))}
    if study.recommendation:
        recommended = study.trial(study.recommendation.trial)
        tags["recommended"] = recommended.config.label(study.default.config)
        tags["mlflow.note.content"] = " ".join(study.recommendation.reasons)
    return tags


def _milliseconds(iso: str) -> int:
    """Milliseconds since 1970; now when the trial does not say."""
    return round((datetime.fromisoformat(iso).timestamp() if iso else time.time()) * 1000)
