"""`fopt import`: a log you already have becomes a workload file.

Does not know formats: `workloads.importers` does.
"""

from __future__ import annotations

from pathlib import Path

import click
from rich.text import Text

from optimizer.cli.progress import Rows, stderr_console
from optimizer.errors import OptimizerError
from workloads.importers import IMPORTERS, converter, files_of, find_importer, import_workload
from workloads.importers.repairs import Repairs
from workloads.importers.source_file import expected_lines
from workloads.importers.stream import import_streamed
from workloads.metadata import WorkloadMetadata
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
@click.option(
    "--repair",
    is_flag=True,
    help="Do not stop at damage: drop lines and rows that cannot be read, keep what stands before a cut, bring mixed "
    "times to seconds, let go of impossible parents. No measurement is made up; every repair is counted and told, "
    "and loudly where more than 5% of the rows had to be dropped.",
)
@click.option("--force", is_flag=True, help="Overwrite OUTPUT.")
def command(
    source: tuple[Path, ...],
    output: Path,
    format_name: str,
    tokenizer: Path | None,
    name: str | None,
    model: Path | None,
    repair: bool,
    force: bool,
) -> None:
    """Turn SOURCE, a trace or request log, into the workload file OUTPUT (parquet).

    Several files, or a folder of them, make one workload where the format has a file a session, or requests and
    answers apart.

    What the source has and the workload cannot hold is told, and stored in the file's metadata.

    A malformed source ends in one line that says where. With --repair, by kind:

    \b
    gzip cut short or damaged   rows before the damage are kept, a line cut in the middle is dropped
    JSON array cut short        items before the cut are kept
    UTF-16, UTF-32              read as such (a byte-order mark is always left out)
    bad or over-long line       dropped
    NaN, negative or no number  the row is dropped where it needs the field, else the value is unknown
    row twice, id twice         a row that is wholly alike is dropped, another gets a number on its id
    s and ms mixed              ms are brought to s where that is sure; think times across them are unknown
    clock that goes back        rows are put in order of time (always)
    missing or cyclic parents   the link is removed; the think time from that parent is unknown
    truncated parquet           cannot be repaired: its index is at its end"""
    if output.exists() and not force:
        raise OptimizerError(f"{output} exists. Choose another name, or overwrite it with --force")
    if not output.parent.is_dir():
        raise OptimizerError(f"no folder {output.parent}. Create it first")
    files = [path for given in source for path in files_of(given)]
    repairs = Repairs(allowed=repair)
    importer = find_importer(files[0], format_name, repairs)
    counter = TokenCounter(tokenizer) if tokenizer else None
    update: dict[str, object] = {"name": name or output.stem, **({"model": str(model)} if model else {})}
    with Rows("importing", expected=_expected(files)) as rows:
        streamed = None
        if len(files) == 1:
            done = {**update, "converter": converter()}
            streamed = import_streamed(
                *(files[0], output, importer),
                tokenizer=counter,
                repairs=repairs,
                update=done,
                saw=rows.advance,
                restart=rows.restart,
            )
        if streamed is None:
            rows.restart()
            repairs.reset()
            workload = import_workload(
                files, format=importer.name, tokenizer=counter, repairs=repairs, saw=rows.advance
            )
            workload = Workload(workload.table, workload.metadata.model_copy(update=update))
            save_workload(output, workload)
            streamed = len(workload), workload.metadata
    _tell(*streamed, output, importer.name)
    _tell_repairs(repairs, streamed[0])
    stderr_console().print(f"next:  fopt inspect {output}")


def _expected(files: list[Path]) -> int | None:
    counts = [expected_lines(path) for path in files]
    return None if None in counts else sum(count or 0 for count in counts)


def _tell(num_requests: int, metadata: WorkloadMetadata, output: Path, format_name: str) -> None:
    console = stderr_console()
    console.print(f"{num_requests} requests from {format_name} written to {output}")
    for loss in metadata.losses:
        console.print(f"not in the source or not kept: {loss}")
    console.print(f"can drive: {', '.join(metadata.capabilities or ()) or 'nothing yet'}")


def _tell_repairs(repairs: Repairs, num_kept: int) -> None:
    console = stderr_console()
    for line in repairs.told():
        console.print(Text(f"repaired: {line}"))
    if (warning := repairs.warning(num_kept)) is not None:
        console.print(Text(f"WARNING: {warning}", style="bold red"))
