"""`fopt import`: a log you already have becomes a workload file.

Does not know formats: `workloads.importers` does.
"""

from __future__ import annotations

from pathlib import Path

import click

from optimizer.cli.progress import stderr_console
from optimizer.errors import OptimizerError
from workloads.importers import IMPORTERS, files_of, find_importer, import_workload
from workloads.parquet import save_workload
from workloads.tokenizer import TokenCounter
from workloads.workload import Workload


@click.command("import", epilog=f"Formats: {', '.join(IMPORTERS)}.  Example:  fopt import trace.csv workload.parquet")
@click.argument("source", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--format", "format_name", default="auto", show_default=True, help="What SOURCE is; auto looks at it.")
@click.option(
    "--tokenizer", type=click.Path(path_type=Path), help="Folder with tokenizer.json, to count tokens of text."
)
@click.option("--name", help="Name of the workload. Default: the output file's.")
@click.option(
    "--model", type=click.Path(path_type=Path, file_okay=False), help="Model folder that runs use by default."
)
@click.option("--force", is_flag=True, help="Overwrite OUTPUT.")
def command(
    source: tuple[Path, ...],
    output: Path,
    format_name: str,
    tokenizer: Path | None,
    name: str | None,
    model: Path | None,
    force: bool,
) -> None:
    """Turn SOURCE, a trace or request log, into the workload file OUTPUT (parquet).

    Several files, or a folder of them, make one workload where the format has a file a session, or requests and
    answers apart.

    What the source has and the workload cannot hold is told, and stored in the file's metadata."""
    if output.exists() and not force:
        raise OptimizerError(f"{output} exists. Choose another name, or overwrite it with --force")
    if not output.parent.is_dir():
        raise OptimizerError(f"no folder {output.parent}. Create it first")
    files = [path for given in source for path in files_of(given)]
    format_found = find_importer(files[0], format_name).name
    counter = TokenCounter(tokenizer) if tokenizer else None
    workload = import_workload(files, format=format_found, tokenizer=counter)
    metadata = workload.metadata.model_copy(
        update={"name": name or output.stem, "model": str(model) if model else workload.metadata.model}
    )
    save_workload(output, Workload(workload.table, metadata))
    _tell(workload, output, format_found)


def _tell(workload: Workload, output: Path, format_name: str) -> None:
    console = stderr_console()
    console.print(f"{len(workload)} requests from {format_name} written to {output}")
    for loss in workload.metadata.losses:
        console.print(f"not in the source or not kept: {loss}")
    console.print(f"can drive: {', '.join(workload.capabilities) or 'nothing yet'}")
    console.print(f"next:  fopt inspect {output}")
