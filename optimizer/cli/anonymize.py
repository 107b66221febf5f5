"""`fopt anonymize`: a workload without its contents, to hand on.

Does not hash: `workloads.anonymize` does.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from optimizer.cli.progress import Counter, stderr_console
from optimizer.errors import OptimizerError
from workloads.anonymize import Anonymized, anonymize_file
from workloads.parquet import WorkloadFile, save_workload
from workloads.tokenizer import TokenCounter
from workloads.workload import Workload


@click.command("anonymize", epilog="Example:  fopt anonymize workload.parquet public.parquet --tokenizer model/")
@click.argument("workload", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--tokenizer", type=click.Path(path_type=Path), help="Folder with tokenizer.json: prefixes by tokens, not text."
)
@click.option(
    "--salt-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Secret bytes for the hashes, to compare workloads. Default: random, and forgotten.",
)
@click.option("--force", is_flag=True, help="Overwrite OUTPUT.")
def command(workload: Path, output: Path, tokenizer: Path | None, salt_file: Path | None, force: bool) -> None:
    """Write WORKLOAD to OUTPUT without text, tool calls, names, ids and dates.

    Token counts, times and the sharing of prefixes stay, as salted hashes of blocks: OUTPUT still drives timing
    replays. What is gone is told. Times and lengths can still tell a known request from others."""
    if output.exists() and not force:
        raise OptimizerError(f"{output} exists. Choose another name, or overwrite it with --force")
    if not output.parent.is_dir():
        raise OptimizerError(f"no folder {output.parent}. Create it first")
    if salt_file is not None and not salt_file.is_file():
        raise OptimizerError(f"no file {salt_file}. Give a file of random bytes, or leave --salt-file out")
    file = WorkloadFile(workload)
    counter = TokenCounter(tokenizer) if tokenizer else None
    salt = salt_file.read_bytes() if salt_file else secrets.token_bytes(32)
    with Counter("anonymizing requests", total=file.num_requests) as progress:
        found = anonymize_file(file, salt, tokenizer=counter, saw=progress.advance)
    metadata = found.workload.metadata.model_copy(update={"name": output.stem})
    save_workload(output, Workload(found.workload.table, metadata))
    _tell(found, output)


def _tell(found: Anonymized, output: Path) -> None:
    console = stderr_console()
    console.print(f"{len(found.workload)} requests written to {output}")
    for name, count in found.gone.items():
        console.print(f"gone: {name} of {count} requests")
    console.print("gone: notes of the import, names of files, tokenizer, model and adapters, and the start time")
    console.print("replaced by salted hashes: ids of requests and sessions, models, adapters, tenants, SLO classes")
    if found.prefix_hit_ratio is not None and found.prefix_hit_ratio_before is not None:
        console.print(
            f"ideal prefix-hit ratio: {found.prefix_hit_ratio_before:.1%} before, {found.prefix_hit_ratio:.1%} now"
        )
    for note in found.notes:
        console.print(note)
    console.print(f"can drive: {', '.join(found.workload.capabilities) or 'nothing yet'}")
