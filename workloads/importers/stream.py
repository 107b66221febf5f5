"""Imports a trace of times and lengths straight into a workload file: memory is bounded by a block of rows.

Does not know formats that have more: those are read whole (`import_workload`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from workloads.importers.importer import Importer
from workloads.importers.length_tables import NotPlainError, azure_tables, vidur_tables
from workloads.metadata import WorkloadMetadata
from workloads.parquet import write_tables_atomically

LENGTH_TABLES: Mapping[str, Callable[[Path], Iterator[pa.Table]]] = {"azure": azure_tables, "vidur": vidur_tables}


def import_lengths(
    path: Path,
    output: Path,
    importer: Importer,
    *,
    update: Mapping[str, object],
    saw: Callable[[int], None] = lambda _: None,
) -> tuple[int, WorkloadMetadata] | None:
    """Write `output`, or None, and nothing, where the trace has to be read row by row.

    Args:
        update: fields of the metadata.
        saw: told the number of rows each time some are written.

    Returns:
        The number of requests and the metadata as written.

    Raises:
        WorkloadError: the folder cannot be written.
    """
    if importer.name not in LENGTH_TABLES:
        return None
    known = {"content": "lengths", "capabilities": ("open_loop",)}
    num_rows = 0

    def tables() -> Iterator[pa.Table]:
        nonlocal num_rows
        for table in LENGTH_TABLES[importer.name](path):
            num_rows += len(table)
            yield table
            saw(len(table))
        if not num_rows:
            raise NotPlainError

    try:
        metadata = importer.read(path).metadata.model_copy(update={**known, **update})
        write_tables_atomically(output, tables(), metadata)
    except NotPlainError:
        return None
    return num_rows, metadata
