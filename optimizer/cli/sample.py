"""`fopt sample`: a short workload that is like a long one.

Does not choose: `workloads.representative_sample` does.
"""

from __future__ import annotations

from pathlib import Path

import click

from optimizer.cli.console import make_table, stdout_console
from optimizer.cli.progress import Counter, stderr_console
from optimizer.errors import OptimizerError
from workloads.parquet import WorkloadFile, save_workload
from workloads.representative_sample import Sample, SampleSize, sample_file
from workloads.workload import Workload


@click.command("sample", epilog="Example:  fopt sample trace.parquet short.parquet --seconds 600")
@click.argument("workload", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--seconds", type=float, help="Recorded seconds to keep.")
@click.option("--requests", "num_requests", type=int, help="About so many requests to keep.")
@click.option("--windows", "num_windows", type=int, help="Pieces of the recording. Default: one each 300 s, at most 8.")
@click.option("--scale", type=float, default=1.0, show_default=True, help="Multiply the load, by whole sessions.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of every random choice.")
@click.option("--force", is_flag=True, help="Overwrite OUTPUT.")
def command(
    workload: Path,
    output: Path,
    seconds: float | None,
    num_requests: int | None,
    num_windows: int | None,
    scale: float,
    seed: int,
    force: bool,
) -> None:
    """Write to OUTPUT a part of WORKLOAD that is like the whole, and print how like.

    The part is contiguous windows of whole sessions, from every regime of load and lengths its share, laid one after
    another."""
    if output.exists() and not force:
        raise OptimizerError(f"{output} exists. Choose another name, or overwrite it with --force")
    if not output.parent.is_dir():
        raise OptimizerError(f"no folder {output.parent}. Create it first")
    size = SampleSize(seconds, num_requests, num_windows, scale)
    file = WorkloadFile(workload)
    with Counter("reading requests, twice", total=2 * file.num_requests) as counter:
        sample = sample_file(file, size, seed=seed, saw=counter.advance)
    metadata = sample.workload.metadata.model_copy(update={"name": output.stem})
    save_workload(output, Workload(sample.workload.table, metadata))
    _tell(sample, output, scale)


def _tell(sample: Sample, output: Path, scale: float) -> None:
    whole = "recording" if scale == 1.0 else f"recording x {scale:g}"
    rows = [(d.what, f"{d.whole:.4g}", f"{d.sample:.4g}", d.told) for d in sample.differences]
    stdout_console().print(make_table(["", whole, "sample", "difference"], rows))
    console = stderr_console()
    console.print(f"{len(sample.workload)} requests written to {output}")
    for note in sample.notes:
        console.print(note)
    console.print(f"next:  fopt inspect {output}")
