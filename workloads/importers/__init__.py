"""Foreign traces and logs to workloads: one file a format, listed here.

Knows nothing of replays.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from workloads.columns import table_from_requests
from workloads.errors import WorkloadError
from workloads.importers.azure import AzureImporter
from workloads.importers.importer import Imported, Importer
from workloads.importers.openai_pairs import OpenAIPairsImporter
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
}

_BATCH_ROWS = 65_536


def find_importer(path: Path, name: str = "auto") -> Importer:
    """The importer of a format, or for `auto` the one that recognises the file.

    Raises:
        WorkloadError: no such file or format, or none (or several) recognise it.
    """
    if not path.is_file():
        raise WorkloadError(f"no file {path}", fix="Give the path of a trace or log file")
    known = ", ".join(IMPORTERS)
    if name != "auto":
        if name not in IMPORTERS:
            raise WorkloadError(f"unknown format {name!r}", fix=f"Use auto or one of {known}")
        return IMPORTERS[name]
    found = [importer for importer in IMPORTERS.values() if importer.recognises(path)]
    if len(found) != 1:
        told = "looks like several formats" if found else "is of no known format"
        raise WorkloadError(f"{path} {told}", fix=f"Give --format, one of {known}")
    return found[0]


def import_workload(path: Path | str, *, format: str = "auto", tokenizer: TokenCounter | None = None) -> Workload:
    """Read a foreign file as a workload; what was lost is in its metadata.

    Args:
        tokenizer: counts tokens where the format has text and no counts.

    Raises:
        WorkloadError: see `find_importer` and `Importer.read`.
    """
    path = Path(path)
    imported = find_importer(path, format).read(path, tokenizer=tokenizer)
    table = _from_zero(_table(imported))
    update = {"losses": (*imported.metadata.losses, *imported.losses), "converter": _converter()}
    return Workload(table, imported.metadata.model_copy(update=update), where=str(path))


def _table(imported: Imported) -> pa.Table:
    """Batch by batch, so that few `Request`s are alive at a time."""
    tables, batch = [WORKLOAD_SCHEMA.empty_table()], list[Request]()
    for request in imported.requests:
        batch.append(request)
        if len(batch) == _BATCH_ROWS:
            tables.append(table_from_requests(batch))
            batch = []
    return pa.concat_tables([*tables, table_from_requests(batch)]).unify_dictionaries()


def _from_zero(table: pa.Table) -> pa.Table:
    first = pc.min(table.column("arrival_s")).as_py()
    if not first:
        return table
    place = table.schema.get_field_index("arrival_s")
    return table.set_column(place, "arrival_s", pc.subtract(table.column("arrival_s"), first))


def _converter() -> Converter:
    try:
        version = importlib.metadata.version("fireoptimizer")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    return Converter(name="fopt import", version=version)
