"""What Chromium shows: the report page, and the trials in MLflow's UI."""

import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import study_cases

from reports.html import write_html
from reports.tracking import Tracker, ui_command, ui_url

pytestmark = pytest.mark.browser
QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture
def chromium() -> str:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium here")
    return path


def rendered(chromium: str, url: str, profile: Path, *, budget_ms: int) -> str:
    """The page's DOM after its scripts ran."""
    options = [*QUIET, f"--user-data-dir={profile}", f"--virtual-time-budget={budget_ms}", "--window-size=1600,1000"]
    done = subprocess.run(
        [chromium, *options, "--dump-dom", url], capture_output=True, text=True, timeout=240, check=True
    )
    return done.stdout


def test_clicking_a_heading_sorts_the_trials(chromium: str, tmp_path: Path) -> None:
    page = write_html(study_cases.study(), tmp_path)
    click = "<script>document.querySelectorAll('table.sortable th button')[3].click()</script></body>"
    page.write_text(page.read_text().replace("</body>", click))
    dom = rendered(chromium, page.as_uri(), tmp_path / "profile", budget_ms=1000)
    rows = re.search(r'<table class="sortable[^>]*>.*?<tbody>(.*?)</tbody>', dom, re.S)
    assert rows
    order = [int(number) for number in re.findall(r"<tr[^>]*>\s*<td[^>]*><span>(\d+)</span>", rows[1])]
    assert order == [7, 9, 6, 2, 5, 3, 1, 0, 4, 8, 10]


@pytest.fixture
def ui(tmp_path: Path, free_port: int) -> Iterator[str]:
    study = study_cases.study()
    with Tracker(tmp_path) as tracker:
        tracker.start_study(
            name=study.name,
            default=study_cases.DEFAULT,
            workload_name=study.workload_name,
            workload_fingerprint=study.workload_fingerprint,
            objective=study.objective,
            slos=study.slos,
            space_name=study.space_name,
            seed=0,
        )
        for trial in study.trials:
            tracker.log_trial(trial)
        tracker.finish_study(study)
        assert tracker.problem == ""
    server = subprocess.Popen(ui_command(tmp_path, host="127.0.0.1", port=free_port))
    try:
        wait_until_healthy(f"http://127.0.0.1:{free_port}/health", server)
        yield ui_url(tmp_path, host="127.0.0.1", port=free_port)
    finally:
        server.terminate()
        server.wait(30)


def wait_until_healthy(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert server.poll() is None, "the UI ended"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError("the UI did not start")


def test_the_mlflow_ui_lists_the_newest_studys_trials_best_first(chromium: str, ui: str, tmp_path: Path) -> None:
    dom = rendered(chromium, ui, tmp_path / "profile", budget_ms=60_000)
    names = re.findall(r">(trial \d\d · [^<]+)<", dom)
    order = list(dict.fromkeys(name[:8] for name in names))
    assert order[:4] == ["trial 07", "trial 09", "trial 06", "trial 02"]
    assert len(order) == 11
    assert "p95_e2el_ms" in dom
    assert ">812<" in dom
