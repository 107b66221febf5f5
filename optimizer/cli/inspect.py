"""`fopt inspect`: what is in a workload, and which replays it can drive.

Does not replay.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from optimizer.cli.console import make_table, stdout_console
from workloads.characterize import characterize_file
from workloads.profile import WorkloadProfile, describe
from workloads.tokenizer import TokenCounter


@click.command("inspect", epilog="Example:  fopt inspect workloads/demo/workload.parquet")
@click.argument("workload", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--tokenizer", type=click.Path(path_type=Path), help="Folder with tokenizer.json: prefixes by tokens, not text."
)
@click.option("--json", "as_json", is_flag=True, help="Print the profile as JSON.")
def command(workload: Path, tokenizer: Path | None, as_json: bool) -> None:
    """Print what is in WORKLOAD: rates, burstiness at several scales, lengths, sessions, prefixes, possible replays."""
    profile = characterize_file(workload, tokenizer=TokenCounter(tokenizer) if tokenizer else None)
    if as_json:
        click.echo(json.dumps(profile.as_json(), indent=2))
    else:
        _print(profile)


def _print(profile: WorkloadProfile) -> None:
    console = stdout_console()
    table = make_table(["", ""], [(row.what, row.value) for row in describe(profile)], title=profile.name)
    table.columns[1].justify, table.columns[1].no_wrap, table.show_header = "left", False, False
    console.print(table)
