"""Foreign traces and logs to workloads: one file a format, listed here.

Knows nothing of replays.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workloads.errors import WorkloadError
from workloads.importers.agent_sessions import AgentSessionsImporter
from workloads.importers.aiperf import AiperfImporter
from workloads.importers.azure import AzureImporter
from workloads.importers.bailian import BailianImporter
from workloads.importers.baseten import BasetenImporter
from workloads.importers.burstgpt import BurstGptImporter
from workloads.importers.clock import clock_notes
from workloads.importers.fine_tuning import FineTuningImporter
from workloads.importers.guidellm import GuideLLMImporter
from workloads.importers.importer import Imported, Importer, ManyFilesImporter
from workloads.importers.langfuse import LangfuseImporter
from workloads.importers.litellm import LiteLLMImporter
from workloads.importers.mooncake import MooncakeImporter
from workloads.importers.openai_batch import OpenAIBatchImporter
from workloads.importers.openai_pairs import OpenAIPairsImporter
from workloads.importers.otel_spans import OtelSpansImporter
from workloads.importers.repaired_table import repaired_table, table_of
from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.importers.rows import read_rows
from workloads.importers.sharegpt import ShareGptImporter
from workloads.importers.source_file import check_source
from workloads.importers.timed_trace import TimedTraceImporter
from workloads.importers.vidur import VidurImporter
from workloads.importers.vllm_custom import VllmCustomImporter
from workloads.metadata import Converter
from workloads.request import Request
from workloads.schema import WORKLOAD_SCHEMA
from workloads.tokenizer import TokenCounter
from workloads.workload import Workload

IMPORTERS: Mapping[str, Importer] = {
    "azure": AzureImporter(),
    "vllm-custom": VllmCustomImporter(),
    "openai-pairs": OpenAIPairsImporter(),
    "mooncake": MooncakeImporter(),
    "qwen-bailian": BailianImporter(),
    "burstgpt": BurstGptImporter(),
    "vidur": VidurImporter(),
    "vllm-timed-trace": TimedTraceImporter(),
    "agent-sessions": AgentSessionsImporter(),
    "otel": OtelSpansImporter(),
    "litellm": LiteLLMImporter(),
    "langfuse": LangfuseImporter(),
    "sharegpt": ShareGptImporter(),
    "fine-tuning": FineTuningImporter(),
    "openai-batch": OpenAIBatchImporter(),
    "aiperf": AiperfImporter(),
    "baseten": BasetenImporter(),
    "guidellm": GuideLLMImporter(),
}

_BATCH_ROWS = 65_536
_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet", ".gz")


def find_importer(path: Path, name: str = "auto", repairs: Repairs = NO_REPAIRS) -> Importer:
    """The importer of a format, or for `auto` the one that recognises the file.

    Raises:
        WorkloadError: no such file or format, or none (or several) recognise it.
    """
    check_source(path, repairs)
    known = ", ".join(IMPORTERS)
    if name != "auto":
        if name not in IMPORTERS:
            raise WorkloadError(f"unknown format {name!r}", fix=f"Use auto or one of {known}")
        return IMPORTERS[name]
    found = [importer for importer in IMPORTERS.values() if importer.recognises(path)]
    if len(found) != 1:
        if not found:
            next(read_rows(path, repairs), None)  # what cannot be read at all says why
        told = "looks like several formats" if found else "is of no known format"
        raise WorkloadError(f"{path} {told}", fix=f"Give --format, one of {known}")
    return found[0]


def files_of(source: Path) -> list[Path]:
    """A file as it is; a folder's JSON, JSON Lines, CSV and parquet files, by name.

    Raises:
        WorkloadError: a folder without any.
    """
    if not source.is_dir():
        return [source]
    found = sorted(path for path in source.iterdir() if path.suffix in _SUFFIXES and path.is_file())
    if not found:
        raise WorkloadError(f"no trace or log file in {source}", fix="Give the path of a trace or log file")
    return found


def import_workload(
    paths: Path | str | Sequence[Path],
    *,
    format: str = "auto",
    tokenizer: TokenCounter | None = None,
    repairs: Repairs = NO_REPAIRS,
    saw: Callable[[int], None] = lambda _: None,
) -> Workload:
    """Read a foreign file, or several that make one workload; what was lost is in its metadata.

    Args:
        paths: a file, a folder, or files.
        tokenizer: counts tokens where the format has text and no counts.
        repairs: takes what is wrong with the files; what it cannot take is raised.
        saw: told the number of rows each time some were read.

    Raises:
        WorkloadError: see `find_importer` and `Importer.read`.
    """
    files = files_of(Path(paths)) if isinstance(paths, Path | str) else list(paths)
    imported = _imported(files, find_importer(files[0], format, repairs), tokenizer, repairs)
    path = files[0] if len(files) == 1 else files[0].parent
    table = _table(imported, repairs, str(path), saw)
    if repairs.allowed:
        table = repaired_table(table, imported.metadata, repairs, where=str(path))
    if not len(table):
        raise WorkloadError(f"{path} has no requests", fix="Give a trace or log with requests in it")
    notes = clock_notes(np.asarray(table.column("arrival_s").to_numpy(), np.float64), str(path))
    table = _from_zero(table)
    losses = (*imported.metadata.losses, *imported.losses, *notes)
    update = {"losses": losses, "converter": converter(), "repairs": dict(repairs.counts)}
    try:
        return Workload(table, imported.metadata.model_copy(update=update), where=str(path))
    except WorkloadError as error:
        repairs.take("row_impossible", error)  # raises it, as repaired rows are possible
        raise


def _imported(files: Sequence[Path], importer: Importer, tokenizer: TokenCounter | None, repairs: Repairs) -> Imported:
    if len(files) == 1:
        return importer.read(files[0], tokenizer=tokenizer, repairs=repairs)
    if not isinstance(importer, ManyFilesImporter):
        fix = "Import the files one by one"
        raise WorkloadError(f"a workload of format {importer.name} is one file, not {len(files)}", fix=fix)
    for path in files[1:]:
        check_source(path, repairs)
    return importer.read_all(files, tokenizer=tokenizer, repairs=repairs)


def _table(imported: Imported, repairs: Repairs, where: str, saw: Callable[[int], None]) -> pa.Table:
    """Batch by batch, so that few `Request`s are alive at a time."""
    tables, batch = [WORKLOAD_SCHEMA.empty_table()], list[Request]()
    for request in imported.requests:
        batch.append(request)
        if len(batch) == _BATCH_ROWS:
            tables.append(table_of(batch, repairs, where))
            saw(len(batch))
            batch = []
    return pa.concat_tables([*tables, table_of(batch, repairs, where)]).unify_dictionaries()


def _from_zero(table: pa.Table) -> pa.Table:
    first = pc.min(table.column("arrival_s")).as_py()
    if not first:
        return table
    place = table.schema.get_field_index("arrival_s")
    return table.set_column(place, "arrival_s", pc.subtract(table.column("arrival_s"), first))


def converter() -> Converter:
    """This program, for the metadata."""
    try:
        version = importlib.metadata.version("fireoptimizer")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    return Converter(name="fopt import", version=version)
