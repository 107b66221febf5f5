"""`fopt replay`: figures of a replay that measured the server, and none of one that measured the client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from mock_server import MockServer

from optimizer.cli import cli
from optimizer.errors import OptimizerError
from workloads.metadata import Source, WorkloadMetadata
from workloads.parquet import write_workload
from workloads.records import read_records
from workloads.request import Request


@pytest.fixture
def server() -> Iterator[MockServer]:
    mock = MockServer()
    mock.start()
    yield mock
    mock.stop()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    requests = [Request(request_id=str(i), arrival_s=0.02 * i, prompt="p", output_tokens=3) for i in range(6)]
    path = tmp_path / "w.parquet"
    write_workload(path, requests, WorkloadMetadata(name="w", source=Source(format="t")))
    return path


def test_a_replay_prints_its_metrics(
    server: MockServer, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workloads.replay.outcome.void_reason", lambda *_: None)
    options = ["--url", server.base_url, "--json", "--clients", "2", "--records", str(tmp_path / "r.parquet")]
    done = CliRunner().invoke(cli, ["replay", str(recording), *options])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["metrics"]["completed"] == 6
    assert "sent by 2 client processes" in told["notes"]
    assert len(read_records(tmp_path / "r.parquet")) == 6


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_void_replay_shows_no_figure_and_keeps_its_records(
    server: MockServer, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: list[str]
) -> None:
    monkeypatch.setattr("workloads.replay.outcome.void_reason", lambda *_: "the load generator was late: p99 9 ms")
    kept = tmp_path / "r.parquet"
    options = ["--url", server.base_url, "--records", str(kept), *form]
    done = CliRunner().invoke(cli, ["replay", str(recording), *options])
    assert isinstance(done.exception, OptimizerError)  # which `main` makes a line and exit code 2 of
    assert done.stdout == ""
    assert str(done.exception).startswith("the replay is void, its figures are not shown: the load generator was late")
    assert f"the records are in {kept}" in str(done.exception)
    assert "--clients" in str(done.exception)
    assert len(read_records(kept)) == 6
