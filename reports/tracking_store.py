"""MLflow's SQLite store below the runs folder: one parent run a study, one child run a trial.

Does not know our result types: it writes the messages of `reports.tracking_messages`.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient

from reports.tracking_files import ARTIFACTS, DATABASE, database_uri
from reports.tracking_messages import FinishStudy, LogTrial, StartStudy
from reports.tracking_view import view_of, view_tag

_STUDY, _TRIAL, _DIGEST = "fopt.study", "fopt.trial", "fopt.digest"
_PARENT, _KIND = "mlflow.parentRunId", "mlflow.experimentKind"
_MAX_PARAM = 6000
_PAGE = 1000


class _Known(NamedTuple):
    run_id: str
    digest: str  # empty: the run was begun and never finished


class TrackingStore:
    """Writes runs. Idempotent: the same study and the same results are written once, also after a kill."""

    def __init__(self, runs_dir: Path) -> None:
        self._runs_dir = runs_dir
        with _locked(runs_dir):
            _create_database(runs_dir)
            self._client = _client(database_uri(runs_dir))
        self._experiment = self._parent = ""
        self._known: dict[int, _Known] = {}

    def start_study(self, message: StartStudy) -> None:
        """Continue the study's parent run when there is one."""
        self._experiment = self._experiment_named(message.experiment)
        studies = self._runs("tags.`fopt.role` = 'study'")
        found = [run for run in studies if run.data.tags.get(_STUDY) == message.study]
        parent = found[0] if found else self._create_run(message.study, {_STUDY: message.study, "fopt.role": "study"})
        self._parent = parent.info.run_id
        self._client.update_run(self._parent, status="RUNNING")
        self._client.set_experiment_tag(self._experiment, view_tag(self._parent), view_of(self._parent))
        self._write(self._parent, params=message.params if not found else {}, tags=message.tags)
        self._known = {}
        for run in self._runs(f"tags.`{_PARENT}` = '{self._parent}'"):
            tags = run.data.tags
            self._known[int(tags[_TRIAL])] = _Known(run.info.run_id, tags.get(_DIGEST, ""))

    def log_trial(self, message: LogTrial) -> None:
        """Write a child run; one that holds the same result stays, an older or unfinished one is replaced."""
        known = self._known.get(message.number)
        if known and known.digest == message.digest:
            return
        if known:
            self._client.delete_run(known.run_id)
        tags = {_PARENT: self._parent, _TRIAL: str(message.number), "fopt.role": "trial"}
        run = self._create_run(message.name, tags, started_ms=message.started_ms)
        self._copy(run, message.files)
        self._write(run.info.run_id, params=message.params, metrics=message.metrics, tags=message.tags)
        self._end(run.info.run_id, message.succeeded, message.ended_ms)
        self._client.set_tag(run.info.run_id, _DIGEST, message.digest)
        self._known[message.number] = _Known(run.info.run_id, message.digest)

    def finish_study(self, message: FinishStudy) -> None:
        """Close the parent run; a resumed study opens it again."""
        self._copy(self._client.get_run(self._parent), message.files)
        self._write(self._parent, metrics=message.metrics, tags=message.tags)
        self._end(self._parent, message.succeeded, None)

    def _experiment_named(self, name: str) -> str:
        known = self._client.get_experiment_by_name(name)
        if known:
            return str(known.experiment_id)
        location = f"mlflow-artifacts:/{re.sub(r'[^A-Za-z0-9_-]+', '-', name)}"
        # `location` is relative to the artifact folder of the server, so that a runs folder can be moved
        created = self._client.create_experiment(name, location, tags={_KIND: "custom_model_development"})
        return str(created)

    def _runs(self, filter_string: str) -> list[Run]:
        runs: list[Run] = []
        token = None
        while True:
            page = self._client.search_runs([self._experiment], filter_string, max_results=_PAGE, page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs

    def _create_run(self, name: str, tags: Mapping[str, str], *, started_ms: int | None = None) -> Run:
        return self._client.create_run(self._experiment, run_name=name, tags=dict(tags), start_time=started_ms)

    def _write(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] = {},
        metrics: Mapping[str, float] = {},
        tags: Mapping[str, str] = {},
    ) -> None:
        self._client.log_batch(
            run_id,
            metrics=[Metric(name, value, 0, 0) for name, value in metrics.items()],
            params=[Param(name, value[:_MAX_PARAM]) for name, value in params.items()],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )

    def _end(self, run_id: str, succeeded: bool, ended_ms: int | None) -> None:
        self._client.set_terminated(run_id, "FINISHED" if succeeded else "FAILED", end_time=ended_ms)

    def _copy(self, run: Run, files: Sequence[str]) -> None:
        """Straight into the folder from which the server serves `mlflow-artifacts:`; no server need run."""
        uri = str(run.info.artifact_uri)
        folder = self._runs_dir / ARTIFACTS / uri.removeprefix("mlflow-artifacts:").lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            if os.path.exists(file):
                shutil.copy(file, folder)


@contextmanager
def _locked(runs_dir: Path) -> Iterator[None]:
    """One process at a time makes or migrates the database."""
    runs_dir.mkdir(parents=True, exist_ok=True)
    with (runs_dir / f".{DATABASE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _create_database(runs_dir: Path) -> None:
    """Make a new database under another name first: a kill half way through its migrations leaves nothing behind."""
    if (runs_dir / DATABASE).exists():
        return
    half_made = runs_dir / f".{DATABASE}.new"
    half_made.unlink(missing_ok=True)
    client = _client(f"sqlite:///{half_made.absolute()}")
    client.search_experiments(max_results=1)
    os.replace(half_made, runs_dir / DATABASE)


def _client(uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri=uri, registry_uri=uri)
