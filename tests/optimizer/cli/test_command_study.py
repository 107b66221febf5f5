"""`fopt run --engine command` from a space to a deployment that is served and verified; and what users get wrong."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml
from traffic_cases import chats

from engine.process import free_port
from optimizer.cli import main
from optimizer.results import TrialResult, TrialState
from workloads.parquet import write_workload

ROOT = Path(__file__).resolve().parents[3]
MODEL = ROOT / "workloads" / "demo" / "models" / "draft"
SERVER = ROOT / "tests" / "engine" / "flag_server.py"
FOPT = [sys.executable, "-c", "from optimizer.cli import main; main()"]
Runs = Callable[..., tuple[int, str, str]]


def space_file(folder: Path, *, command: list[str] | None = None, parameters: object = None, **launch: object) -> Path:
    own = [sys.executable, str(SERVER), "--model", "{model}", "--host", "{host}", "--port", "{port}", "{flags}"]
    told = {"command": command or own, "environment": {"PYTHONPATH": str(ROOT)}, "timeout_s": 200, **launch}
    choices = {"engine_args.max-num-seqs": {"choices": [4, 16], "default": 4}}
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump({"launch": told, "parameters": choices if parameters is None else parameters}))
    return path


@pytest.fixture
def traffic(tmp_path: Path) -> Path:
    workload = chats(40, rate_rps=20, checked=False)
    path = tmp_path / "traffic.parquet"
    write_workload(path, list(workload), workload.metadata)
    return path


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Runs:
    """Runs `fopt` here: exit status, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fopt", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        told = capsys.readouterr()
        return int(stop.value.code or 0), told.out, told.err

    return run


def options_of(space: Path, folder: Path) -> list[object]:
    return ["--engine", "command", "--space", space, "--model", MODEL, "--runs-dir", folder / "runs"]


@pytest.mark.usefixtures("never_late")
def test_a_study_of_a_command_ends_in_a_file_that_serves_and_holds(traffic: Path, tmp_path: Path, runs: Runs) -> None:
    space = space_file(tmp_path)
    options = [*options_of(space, tmp_path), "--name", "s"]
    options += ["--budget", "10s", "--no-verify", "--slo", "e2el:p95<60s"]
    status, out, err = runs("run", traffic, "--heldout", traffic, *options)
    assert status == 0, err
    study = tmp_path / "runs" / "s"
    first = TrialResult.model_validate_json((study / "trials" / "0000" / "result.json").read_text())
    assert first.state is TrialState.COMPLETE, first.reason
    assert first.config.engine_args == {"max-num-seqs": 4}
    assert first.quality is not None
    assert first.cost is not None
    assert (study / "report.md").exists()
    assert (study / "report.html").exists()
    assert "best.yaml" in out
    best = yaml.safe_load((study / "best.yaml").read_text())
    assert best["config"]["launch"]["command"][1] == str(SERVER)
    assert not [child for child in psutil.Process().children(recursive=True) if str(SERVER) in child.cmdline()]

    assert_serves(study / "best.yaml", tmp_path / "serve.log")

    status, out, err = runs("verify", study / "best.yaml", traffic, "--seconds", 1, "--slo", "e2el:p95<60s", "--json")
    verification = json.loads(out)
    assert verification["order"] == "BB", err
    assert [outcome["violation"] <= 0 for outcome in verification["slos"] if outcome["slo"].startswith("e2el")] == [
        True
    ]
    assert status == (0 if verification["holds"] else 1), "what was promised is compared with what is measured now"


def assert_serves(best: Path, log_path: Path) -> None:
    port = free_port()
    with log_path.open("wb") as log:
        command = [*FOPT, "serve", str(best), "--port", str(port), "--served-model-name", "unused"]
        server = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    try:
        name = wait_for_model(port, server, log_path)
        body = json.dumps({"model": name, "prompt": "a", "max_tokens": 2}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", body, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.loads(answer.read())["choices"]
    finally:
        family = psutil.Process(server.pid).children(recursive=True)
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0, log_path.read_text()[-2000:]
    assert not psutil.wait_procs(family, timeout=20)[1]


def wait_for_model(port: int, server: subprocess.Popen[bytes], log_path: Path) -> str:
    deadline = time.monotonic() + 200
    while True:
        assert server.poll() is None, log_path.read_text()[-2000:]
        assert time.monotonic() < deadline
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5) as answer:
                return str(json.loads(answer.read())["data"][0]["id"])
        except OSError:
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["no-such-program", "{port}"], "there is no program no-such-program. Install it, or give its path"),
        ([sys.executable, "{model}"], "{port}"),
        ([sys.executable, "{prot}", "{port}"], "prot"),
        ([sys.executable, "{port}", "{engine_args.batch}"], "engine_args.batch"),
    ],
    ids=["no program", "no port", "a misspelt place", "a place without a value"],
)
def test_a_bad_template_is_one_line_before_anything_is_written(
    traffic: Path, tmp_path: Path, runs: Runs, command: list[str], words: str
) -> None:
    space = space_file(tmp_path, command=command, parameters={})
    options = ["--engine", "command", "--space", space, "--model", MODEL, "--runs-dir", tmp_path / "runs"]
    status, _, err = runs("run", traffic, *options)
    assert status == 2, err
    assert err.startswith("fopt: error: ")
    assert len(err.splitlines()) == 1
    assert words in err
    assert not (tmp_path / "runs").exists()


def test_a_server_that_dies_is_one_line_with_its_last_words(traffic: Path, tmp_path: Path, runs: Runs) -> None:
    program = "print('no GPU of mine'); raise SystemExit(3)"
    space = space_file(tmp_path, command=[sys.executable, "-c", program, "{port}"], parameters={})
    options = [*options_of(space, tmp_path), "--no-verify"]
    status, out, err = runs("run", traffic, *options, "--name", "s")
    assert status == 2
    last = err.splitlines()[-1]
    assert last.startswith("fopt: error: the default config cannot run here: ")
    assert "exit status 3): no GPU of mine" in last
    assert str(Path("trials") / "0000" / "engine.log") in last
    assert out == ""
    assert not (tmp_path / "runs" / "s" / "best.yaml").exists()


def test_an_address_that_is_no_openai_server_is_one_line(tmp_path: Path, traffic: Path, runs: Runs) -> None:
    pages = tmp_path / "pages"
    (pages / "v1").mkdir(parents=True)
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(pages)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until_listening(port)
            options = ["--engine", "endpoint", "--url", f"http://127.0.0.1:{port}", "--runs-dir", tmp_path / "runs"]
            status, _, err = runs("run", traffic, *options)
            assert (status, len(err.splitlines())) == (2, 1), err
            assert "/v1/models does not answer: 404 File not found, with a web page. Is the server running?" in err
            (pages / "v1" / "models").write_text("<html><body>Welcome</body></html>")
            status, _, err = runs("run", traffic, *options)
            assert (status, len(err.splitlines())) == (2, 1), err
            assert "it answers with a web page, not with the JSON of an OpenAI server" in err
            (pages / "v1" / "models").write_text(json.dumps({"data": [{"id": "org/llama"}]}))
            status, _, err = runs("run", traffic, *options, "--model-name", "org/lama")
            assert (status, len(err.splitlines())) == (2, 1), err
            assert "has no model 'org/lama'; it lists: org/llama. Correct --model-name" in err
            assert not (tmp_path / "runs").exists()
        finally:
            os.kill(server.pid, signal.SIGKILL)


def wait_until_listening(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the test's web server did not start")
