"""MLflow tracking: one parent run a study, one child a trial, each written once whatever happens. Read by SQL."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import study_cases

from optimizer.results import StudyResult
from reports.errors import ReportError
from reports.tracking import Tracker, ui_command
from workloads.records import write_records

CHILDREN = """
    SELECT r.run_uuid, r.name, r.status, r.artifact_uri FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid
    WHERE t.key = 'mlflow.parentRunId' AND t.value = ? AND r.lifecycle_stage = 'active' ORDER BY r.name
"""
PARENTS = """
    SELECT r.run_uuid, r.status FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid
    WHERE t.key = 'fopt.study' AND t.value = ? AND r.lifecycle_stage = 'active'
"""


def start(tracker: Tracker, name: str) -> None:
    tracker.start_study(
        name=name,
        default=study_cases.DEFAULT,
        workload_name="it's a demo",
        workload_fingerprint="5f1c",
        objective="latency",
        slos=study_cases.SLOS,
        space_name="bundled",
        seed=0,
        environment={"cores": "2"},
    )


def rows(runs_dir: Path, query: str, *values: str) -> list[tuple[str, ...]]:
    connection = sqlite3.connect(runs_dir / "mlflow.db", timeout=30)
    try:
        found: list[tuple[str, ...]] = connection.execute(query, values).fetchall()
        connection.commit()
    finally:
        connection.close()
    return found


def children(runs_dir: Path, name: str) -> list[tuple[str, ...]]:
    ((parent, _),) = rows(runs_dir, PARENTS, name)
    return rows(runs_dir, CHILDREN, parent)


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder whose database two processes began to make at the same moment."""
    path = tmp_path_factory.mktemp("runs")
    with Tracker(path) as one, Tracker(path) as other:
        start(one, "first")
        start(other, "second")
        assert one.problem == other.problem == ""
    return path


@pytest.fixture(scope="module")
def tracker(runs_dir: Path) -> Iterator[Tracker]:
    """One for all tests: starting MLflow takes seconds, and going on with a study is the same as starting it again."""
    with Tracker(runs_dir) as made:
        yield made
        assert made.problem == ""


def test_two_processes_may_make_the_database_at_once(runs_dir: Path) -> None:
    assert len(rows(runs_dir, PARENTS, "first")) == len(rows(runs_dir, PARENTS, "second")) == 1
    assert len(rows(runs_dir, "SELECT name FROM experiments WHERE name = ?", "it's a demo")) == 1


def test_every_trial_is_a_child_run_with_a_name_that_tells_it_apart(
    tracker: Tracker, runs_dir: Path, study: StudyResult
) -> None:
    start(tracker, "named")
    for trial in study.trials:
        tracker.log_trial(trial)
    tracker.finish_study(study)
    found = children(runs_dir, "named")
    assert [name for _, name, _, _ in found][:3] == [
        "trial 00 · default",
        "trial 01 · int8",
        "trial 02 · draft_model k=4",
    ]
    assert [status for _, _, status, _ in found].count("FAILED") == 3  # refused, failed, void
    assert rows(runs_dir, PARENTS, "named")[0][1] == "FINISHED"


def test_a_trial_holds_its_config_numbers_and_origin(tracker: Tracker, runs_dir: Path, study: StudyResult) -> None:
    start(tracker, "contents")
    tracker.log_trial(study.trials[7])
    tracker.log_trial(study.trials[8])
    good, bad = (run for run, *_ in children(runs_dir, "contents"))
    params = dict(rows(runs_dir, "SELECT key, value FROM params WHERE run_uuid = ?", good))
    metrics = dict(rows(runs_dir, "SELECT key, value FROM metrics WHERE run_uuid = ?", good))
    assert params["quantization.weights"] == "int8"
    assert params["max_model_len"] == "-"
    assert metrics["p95_e2el_ms"] == pytest.approx(812)
    assert metrics["p95_e2el_ms_low"] < 812 < metrics["p95_e2el_ms_high"]
    assert metrics["quality"] == pytest.approx(0.9973)
    assert "usd_per_million_tokens_high" in metrics
    tags = dict(rows(runs_dir, "SELECT key, value FROM tags WHERE run_uuid = ?", bad))
    assert tags["state"] == "failed"
    assert tags["failure"] == "out_of_memory"
    assert tags["origin"] == "surrogate"
    assert tags["provenance"] == "measured"


def test_logging_again_changes_nothing_and_a_changed_result_replaces(
    tracker: Tracker, runs_dir: Path, study: StudyResult
) -> None:
    start(tracker, "again")
    for _ in range(2):
        tracker.log_trial(study.trials[1])
    before = children(runs_dir, "again")
    start(tracker, "again")
    tracker.log_trial(study.trials[1])
    assert children(runs_dir, "again") == before
    tracker.log_trial(study.trials[1].model_copy(update={"duration_s": 30.0}))
    after = children(runs_dir, "again")
    assert len(after) == 1
    assert after != before


def test_a_run_that_was_never_finished_is_written_anew(tracker: Tracker, runs_dir: Path, study: StudyResult) -> None:
    start(tracker, "half")
    tracker.log_trial(study.trials[2])
    ((half, *_),) = children(runs_dir, "half")
    rows(runs_dir, "DELETE FROM tags WHERE run_uuid = ? AND key = 'fopt.digest'", half)
    start(tracker, "half")
    tracker.log_trial(study.trials[2])
    ((whole, *_),) = children(runs_dir, "half")
    assert whole != half


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import study_cases, test_tracking
from reports.tracking import Tracker
tracker = Tracker(Path(sys.argv[1]))
test_tracking.start(tracker, "killed")
for trial in study_cases.trials()[:2]:
    tracker.log_trial(trial)
print(tracker._writer.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_after_a_kill_the_writer_ends_and_nothing_is_logged_twice(
    tracker: Tracker, runs_dir: Path, study: StudyResult
) -> None:
    command = [sys.executable, "-c", KILLED, str(runs_dir), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment, timeout=200)
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 20
    while _alive(int(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(int(done.stdout))
    start(tracker, "killed")
    for trial in study.trials[:4]:
        tracker.log_trial(trial)
    assert len(children(runs_dir, "killed")) == 4


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_only_files_that_hold_no_prompts_are_kept(
    tracker: Tracker, runs_dir: Path, study: StudyResult, tmp_path: Path
) -> None:
    for name in ("config.yaml", "result.json", "engine.log", "responses.jsonl"):
        (tmp_path / name).write_text(f"content of {name}")
    write_records(tmp_path / "records.parquet", [])
    start(tracker, "files")
    tracker.log_trial(study.trials[0], tmp_path)
    pq.write_table(pa.table({"request_id": ["a"], "response": ["a secret"]}), tmp_path / "records.parquet")
    tracker.log_trial(study.trials[1], tmp_path)
    kept = [_artifacts(runs_dir, uri) for *_, uri in children(runs_dir, "files")]
    assert kept[0] == ["config.yaml", "engine.log", "records.parquet", "result.json"]
    assert kept[1] == ["config.yaml", "engine.log", "result.json"]


def _artifacts(runs_dir: Path, uri: str) -> list[str]:
    folder = runs_dir / "mlartifacts" / uri.removeprefix("mlflow-artifacts:/")
    return sorted(path.name for path in folder.iterdir())


def test_logging_a_trial_is_quick(tracker: Tracker, study: StudyResult) -> None:
    start(tracker, "quick")
    tracker.log_trial(study.trials[0])
    taken = []
    for trial in study.trials[1:6]:
        began = time.monotonic()
        tracker.log_trial(trial)
        taken.append(time.monotonic() - began)
    assert min(taken) < 1.0


def test_a_broken_store_never_fails_the_study(
    tmp_path: Path, study: StudyResult, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database " * 100)
    with Tracker(tmp_path) as tracker:
        start(tracker, "broken")
        tracker.log_trial(study.trials[0])
        tracker.finish_study(study)
    assert "not a database" in tracker.problem
    assert "trials are no longer tracked" in caplog.text
    assert len(caplog.records) == 1


def test_leaving_before_the_database_is_open_does_not_wait(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        began = time.monotonic()
    assert time.monotonic() - began < 2
    assert tracker.problem == ""


def test_the_ui_needs_studies_and_a_free_port(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="holds no studies yet"):
        ui_command(tmp_path, host="127.0.0.1", port=5000)
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ReportError, match="is in use"):
            ui_command(tmp_path, host="127.0.0.1", port=taken.getsockname()[1])


def test_the_ui_runs_one_worker_on_our_store_without_telemetry(runs_dir: Path, free_port: int) -> None:
    command = ui_command(runs_dir, host="127.0.0.1", port=free_port)
    assert "MLFLOW_DISABLE_TELEMETRY=true" in command
    assert command[command.index("--workers") + 1] == "1"
    assert command[command.index("--backend-store-uri") + 1] == f"sqlite:///{runs_dir}/mlflow.db"
    assert "--allowed-hosts" not in command
    assert "--allowed-hosts" in ui_command(runs_dir, host="0.0.0.0", port=free_port)
