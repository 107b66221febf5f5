"""`fopt export`: a workload file for another load generator, to cross-check with it.

Does not know formats: `workloads.exporters` does.
"""

from __future__ import annotations

from pathlib import Path

import click

from optimizer.cli.progress import stderr_console
from optimizer.errors import OptimizerError
from workloads.exporters import EXPORTERS, export_workload
from workloads.parquet import read_workload


@click.command("export", epilog="Example:  fopt export workload.parquet trace.jsonl --format vllm-timed-trace")
@click.argument("workload", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--format", "format_name", required=True, type=click.Choice(list(EXPORTERS)), help="What OUTPUT becomes.")
@click.option("--force", is_flag=True, help="Overwrite OUTPUT.")
def command(workload: Path, output: Path, format_name: str, force: bool) -> None:
    """Write WORKLOAD as OUTPUT, JSON Lines that another tool replays; what the format cannot hold is told."""
    if output.exists() and not force:
        raise OptimizerError(f"{output} exists. Choose another name, or overwrite it with --force")
    found = read_workload(workload)
    losses = export_workload(found, output, format=format_name)
    console = stderr_console()
    console.print(f"{len(found)} requests written to {output} as {format_name}")
    for loss in losses:
        console.print(f"not as in the workload: {loss}")
