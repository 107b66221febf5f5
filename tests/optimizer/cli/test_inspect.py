"""`fopt inspect`: the terminal has every number of the page; the page appears whole or not at all."""

from pathlib import Path

from click.testing import CliRunner

from optimizer.cli import cli
from optimizer.errors import OptimizerError

DEMO = Path(__file__).parents[3] / "workloads" / "demo" / "workload.parquet"


def test_the_demo_has_a_page_and_the_terminal_has_its_numbers(tmp_path: Path) -> None:
    page = tmp_path / "w.html"
    done = CliRunner().invoke(cli, ["inspect", str(DEMO), "--html", str(page)])
    assert done.exit_code == 0, done.output
    for what in (
        *("rate", "burstiness", "input tokens", "output tokens", "length correlation", "sessions", "turns a session"),
        *("think time, s", "prefix sharing", "with an LRU cache", "copied from prompts", "lookup, words/step"),
        *("SLO classes", "drawing", "temperatures", "sent with", "can drive"),
    ):
        assert what in done.output
        assert what in page.read_text()


def test_a_page_is_not_overwritten_unasked(tmp_path: Path) -> None:
    (tmp_path / "w.html").write_text("mine")
    for page in (tmp_path / "w.html", tmp_path, tmp_path / "no" / "w.html"):
        done = CliRunner().invoke(cli, ["inspect", str(DEMO), "--html", str(page)])
        assert isinstance(done.exception, OptimizerError)
    assert (tmp_path / "w.html").read_text() == "mine"
    assert CliRunner().invoke(cli, ["inspect", str(DEMO), "--html", str(tmp_path / "w.html"), "--force"]).exit_code == 0
