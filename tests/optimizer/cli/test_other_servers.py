"""`fopt run --engine endpoint` and `--engine command`: what is asked, what comes out, and wrong wishes in one line."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from fakes.fake_server import Behaviour, FakeServer
from fakes.serving import Serve
from traffic_cases import chats

from engine.config import EngineConfig
from optimizer.candidate import make_config, space_around
from optimizer.cli import main
from optimizer.cli.other_servers import command_config, space_of_engine
from optimizer.reasons import what_changes
from optimizer.results import TrialResult, TrialState
from reports.deployment import read_deployment
from reports.vllm_config import write_vllm
from workloads.parquet import write_workload

Fails = Callable[..., str]
SPACE = """
launch:
  command: [serve, "{model}", --port, "{port}", "{flags}"]
  quality: {kv: null}
parameters:
  engine_args.batch: {choices: [1, 2], default: 2}
  engine_args.kv: [null, fp8]
  engine_args.quiet: [false, true]
"""


class Wishes:
    """Of `fopt run`, as far as they say which server is meant."""

    engine, model, base, sku = "command", None, None, "local"
    url = model_name = api_key_env = None

    def __init__(self, space: Path) -> None:
        self.space = str(space)


@pytest.fixture
def traffic(tmp_path: Path) -> Path:
    workload = chats(120)
    path = tmp_path / "traffic.parquet"
    write_workload(path, list(workload), workload.metadata)
    return path


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], traffic: Path, tmp_path: Path) -> Fails:
    """Runs `fopt run`, checks that it is a user error that leaves nothing behind, and returns its line."""

    def run(*arguments: object) -> str:
        options = ["--runs-dir", str(tmp_path / "runs"), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", ["fopt", "run", str(traffic), *options])
        with pytest.raises(SystemExit) as stop:
            main()
        told = capsys.readouterr()
        assert stop.value.code == 2, told.err
        assert not (tmp_path / "runs").exists()
        return told.err.removeprefix("fopt: error: ")

    return run


@pytest.mark.usefixtures("never_late")
def test_a_running_server_gives_one_measured_point(
    serve: Serve, traffic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server: FakeServer = serve(Behaviour())
    options = ["--engine", "endpoint", "--url", server.base_url + "/v1", "--runs-dir", str(tmp_path / "runs")]
    options += ["--name", "s", "--budget", "10s", "--no-verify", "--slo", "e2el:p95<5s"]
    monkeypatch.setattr(sys, "argv", ["fopt", "run", str(traffic), *options])
    with pytest.raises(SystemExit) as stop:
        main()
    told = capsys.readouterr().out
    assert stop.value.code in (0, None)
    assert "There was nothing to choose from" in " ".join(told.split())
    study = tmp_path / "runs" / "s"
    [result] = [json.loads(path.read_text()) for path in study.glob("trials/*/result.json")]
    assert result["state"] == "complete"
    assert result["provenance"] == "measured"
    assert result["quality"]["checks_score"]["value"] == 1.0
    assert result["cost"]["capacity_rps"]["value"] > 0
    report = (study / "report.md").read_text()
    assert "was running already" in report
    assert "no call that empties its prefix cache" in report
    assert "says nothing we know" in report
    assert f"--engine endpoint --url {server.base_url}" in report
    assert "--model DIR" in report
    best = yaml.safe_load((study / "best.yaml").read_text())
    assert best["config"]["engine_args"] == {"url": server.base_url + "/v1", "model_name": "fake"}
    assert "it runs already, at" in (study / "best.yaml").read_text()
    assert "holds none" in (study / "best.vllm.yaml").read_text().replace("\n# ", " ")
    monkeypatch.setattr(sys, "argv", ["fopt", "serve", str(study / "best.yaml")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "there is nothing to start" in capsys.readouterr().err
    again = [
        "fopt",
        "verify",
        str(study / "best.yaml"),
        str(traffic),
        "--slo",
        "e2el:p95<5s",
        "--seconds",
        "1",
        "--json",
    ]
    monkeypatch.setattr(sys, "argv", again)
    with pytest.raises(SystemExit):
        main()
    verification = json.loads(capsys.readouterr().out)
    assert verification["order"] == "BB"
    assert "p95_e2el_ms" in [comparison["metric"] for comparison in verification["comparisons"]]


def test_wishes_that_do_not_belong_together_are_said(fails: Fails, tmp_path: Path) -> None:
    assert "--url belongs to --engine endpoint" in fails("--url", "http://127.0.0.1:1")
    assert "Give its address with --url" in fails("--engine", "endpoint")
    at = ("--engine", "endpoint", "--url", "http://127.0.0.1:1")
    assert "Leave --base and --space out" in fails(*at, "--space", "bundled")
    assert "Is the server running?" in fails(*at)
    model = tmp_path / "model"
    model.mkdir()
    command = ("--engine", "command", "--model", model)
    assert "Give --space FILE, or one of: llama-cpp, sglang" in fails(*command)
    assert "Give it a launch: section" in fails(*command, "--space", "bundled")
    assert "Give --engine command" in fails("--model", model, "--space", "sglang")
    missing = tmp_path / "missing.yaml"
    missing.write_text(SPACE.replace("serve", "no-such-program"))
    assert "there is no program no-such-program" in fails(*command, "--space", missing)


def test_the_default_config_of_a_command_is_the_spaces_own(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    base = command_config(Wishes(path), "model")
    assert base.engine_args == {"batch": 2, "kv": None, "quiet": False}
    space = space_around(space_of_engine("command", str(path)), base)
    assert make_config(base, space, space.default_assignment) == base
    assert space.size() == 8
    other = make_config(base, space, {**space.default_assignment, "engine_args.kv": "fp8", "engine_args.quiet": True})
    assert other.launch == base.launch
    assert other.quality_class() != base.quality_class()
    assert other.label(base) == "kv fp8, quiet on"
    trials = [TrialResult(number=i, config=c, state=TrialState.COMPLETE) for i, c in enumerate((base, other))]
    assert what_changes(trials[1], trials[0]) == [
        "kv is fp8 instead of left to the server.",
        "quiet is on instead of off.",
    ]


def test_a_deployment_of_a_command_is_read_back_and_is_none_of_vllms(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    base = command_config(Wishes(path), "model")
    file = tmp_path / "best.yaml"
    file.write_text(yaml.safe_dump(base.model_dump(mode="json")))
    assert read_deployment(file).config == base
    text = write_vllm(base, tmp_path).read_text().replace("\n# ", " ")
    assert "its flags are not vLLM's" in text
    assert yaml.safe_load(text) is None


def test_a_served_command_gets_its_port_and_ends_with_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    program = "import sys; print('started', *sys.argv[1:]); sys.exit(7)"
    launch = {"command": [sys.executable, "-c", program, "{host}:{port}", "{flags}"]}
    config = EngineConfig.model_validate(
        {"model": "m", "engine": "command", "launch": launch, "engine_args": {"batch": 4}}
    )
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    monkeypatch.setattr(sys, "argv", ["fopt", "serve", str(file), "--port", "18763"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 7
    assert "started 127.0.0.1:18763 --batch 4" in capfd.readouterr().out
