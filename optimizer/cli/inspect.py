"""`fopt inspect`: what is in a workload, and which replays it can drive.

Does not replay.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from optimizer.cli.console import make_table, stdout_console
from optimizer.cli.progress import Counter, stderr_console
from optimizer.errors import OptimizerError
from workloads.characterize import characterize_file
from workloads.description import describe
from workloads.parquet import WorkloadFile
from workloads.profile import WorkloadProfile
from workloads.tokenizer import TokenCounter

_LONG = 500_000  # requests; fewer are read in a moment


@click.command("inspect", epilog="Example:  fopt inspect workloads/demo/workload.parquet --html workload.html")
@click.argument("workload", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="Folder with tokenizer.json: prefixes and copies by tokens, not text.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the profile as JSON.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a page with pictures, and what they mean.")
@click.option("--force", is_flag=True, help="Overwrite the page.")
def command(workload: Path, tokenizer: Path | None, as_json: bool, html: Path | None, force: bool) -> None:
    """Print what is in WORKLOAD: rates, burstiness at several scales, lengths, sessions, prefixes, possible replays."""
    if html is not None:
        check_page(html, force)
    counter = TokenCounter(tokenizer) if tokenizer else None
    file = WorkloadFile(workload)
    with Counter("reading requests", total=file.num_requests, quiet=file.num_requests < _LONG) as progress:
        profile = characterize_file(file, tokenizer=counter, saw=progress.advance)
    if as_json:
        click.echo(json.dumps(profile.as_json(), indent=2))
    else:
        _print(profile)
    if html is not None:
        from reports.workload_html import write_workload_html  # templates take a moment to import

        stderr_console().print(f"wrote {write_workload_html(profile, html)}")


def check_page(path: Path, force: bool) -> None:
    """Raises OptimizerError when no page can be written there."""
    if path.is_dir():
        raise OptimizerError(f"{path} is a folder. Give a file name for the page")
    if path.exists() and not force:
        raise OptimizerError(f"{path} exists. Choose another name, or overwrite it with --force")
    if not path.parent.is_dir():
        raise OptimizerError(f"no folder {path.parent}. Create it first")


def _print(profile: WorkloadProfile) -> None:
    console = stdout_console()
    table = make_table(["", ""], [(row.what, row.value) for row in describe(profile)], title=profile.name)
    table.columns[1].justify, table.columns[1].no_wrap, table.show_header = "left", False, False
    console.print(table)
