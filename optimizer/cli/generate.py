"""`fopt generate`: new traffic from recorded models of clients.

Does not draw: `workloads.servegen` does.
"""

from __future__ import annotations

from pathlib import Path

import click

from optimizer.cli.progress import stderr_console
from optimizer.errors import OptimizerError
from workloads.parquet import save_workload
from workloads.servegen import generate_servegen
from workloads.workload import Workload


@click.command(
    "generate", epilog="Example:  fopt generate servegen/deepseek-r1 hour.parquet --start 36000 --seconds 3600"
)
@click.argument("models", type=click.Path(path_type=Path, file_okay=False))
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--seconds", type=float, required=True, help="Length of the traffic.")
@click.option("--start", type=float, default=0.0, show_default=True, help="Second of the recorded day it begins at.")
@click.option("--rate", type=float, help="Mean requests/s. Default: as recorded.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of every random choice.")
@click.option("--force", is_flag=True, help="Overwrite OUTPUT.")
def command(
    models: Path, output: Path, seconds: float, start: float, rate: float | None, seed: int, force: bool
) -> None:
    """Draw traffic from ServeGen's client models in the folder MODELS, and write it to the workload file OUTPUT."""
    if output.exists() and not force:
        raise OptimizerError(f"{output} exists. Choose another name, or overwrite it with --force")
    if not output.parent.is_dir():
        raise OptimizerError(f"no folder {output.parent}. Create it first")
    found = generate_servegen(models, seconds=seconds, start_s=start, rate_rps=rate, seed=seed)
    metadata = found.metadata.model_copy(update={"name": output.stem})
    save_workload(output, Workload(found.table, metadata))
    console = stderr_console()
    console.print(f"{len(found)} requests written to {output}")
    for part in metadata.synthetic_parts:
        console.print(f"generated: {part}")
    console.print(f"next:  fopt inspect {output}")
