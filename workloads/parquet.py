"""Workload files: write atomically, read whole, or read by row groups.

Does not know what the requests mean: that is `validation.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from workloads.columns import conform
from workloads.errors import WorkloadError
from workloads.metadata import WorkloadMetadata, parse_metadata
from workloads.request import Request
from workloads.schema import METADATA_KEY, WORKLOAD_SCHEMA
from workloads.workload import Workload

ROW_GROUP_ROWS = 65_536  # at most
ROW_GROUP_BYTES = 64 << 20  # about, uncompressed: what a reader of one row group holds


def _leaves(field: pa.Field, path: str) -> list[str]:
    """What parquet calls the columns of values that a field holds."""
    if pa.types.is_list(field.type):
        return _leaves(field.type.value_field, f"{path}.list.element")
    if pa.types.is_struct(field.type):
        return [leaf for inner in field.type for leaf in _leaves(inner, f"{path}.{inner.name}")]
    return [path]


# Block ids run on from one to the next, so their differences are small; a dictionary of distinct values helps no one.
_DELTAS = dict.fromkeys(_leaves(WORKLOAD_SCHEMA.field("prefix_hashes"), "prefix_hashes"), "DELTA_BINARY_PACKED")
_DISTINCT = ("request_id", "arrival_s", *_DELTAS)
_ENCODING: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": [
        leaf for field in WORKLOAD_SCHEMA for leaf in _leaves(field, field.name) if leaf not in _DISTINCT
    ],
    "column_encoding": _DELTAS,
}


def write_workload(path: Path | str, requests: Iterable[Request] | pa.Table, metadata: WorkloadMetadata) -> Workload:
    """Check, sort by arrival and write; the file appears whole or not at all.

    Returns:
        The workload as it was written, `content` and `capabilities` filled in.

    Raises:
        WorkloadError: an invariant does not hold, or the folder cannot be written.
    """
    if isinstance(requests, pa.Table):
        workload = Workload(requests, metadata, where=str(path))
    else:
        workload = Workload.from_requests(requests, metadata)
    save_workload(path, workload)
    return workload


def save_workload(path: Path | str, workload: Workload) -> None:
    """Write a workload that is already checked."""
    table = workload.table.replace_schema_metadata({METADATA_KEY: workload.metadata.to_json().encode()})
    write_table_atomically(Path(path), table)


def write_table_atomically(path: Path, table: pa.Table) -> None:
    """Zstd parquet under a temporary name in the same folder, flushed to disk, then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        pq.write_table(table, temporary, row_group_size=_row_group_rows(table), **_ENCODING)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_tables_atomically(path: Path, tables: Iterable[pa.Table], metadata: Callable[[], WorkloadMetadata]) -> None:
    """As `write_table_atomically`, of tables in our schema that are checked and in order; one is in memory at a time.

    Args:
        metadata: asked when all the tables are written: what was lost is known then.

    Raises:
        WorkloadError: the folder cannot be written. What `tables` raises passes through; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with pq.ParquetWriter(temporary, WORKLOAD_SCHEMA, **_ENCODING) as writer:
            for table in tables:
                writer.write_table(table, row_group_size=_row_group_rows(table))
            writer.add_key_value_metadata({METADATA_KEY: metadata().to_json().encode()})
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> WorkloadError:
    fix = "Give a path in a folder that exists and can be written"
    return WorkloadError(f"cannot write {path}: {error.strerror or error}", fix=fix)


def _row_group_rows(table: pa.Table) -> int:
    row_bytes = max(1, int(table.nbytes) // max(1, len(table)))
    return min(ROW_GROUP_ROWS, max(1, ROW_GROUP_BYTES // row_bytes))


def read_workload(path: Path | str) -> Workload:
    """Read and check a whole workload file.

    Raises:
        WorkloadError: missing, truncated or foreign file, another schema version, or a broken invariant.
    """
    file = WorkloadFile(path)
    return Workload(file.read(), file.metadata, where=str(path))


class WorkloadFile:
    """A workload file opened for reading by row groups: memory is bounded by one row group of the asked columns."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file = open_parquet(self.path)
        stored = (self._file.metadata.metadata or {}).get(METADATA_KEY)
        if stored is None:
            fix = "Import it with fopt import, or write it with workloads.parquet.write_workload"
            raise WorkloadError(f"{path} is parquet but not a workload: no {METADATA_KEY.decode()!r} metadata", fix=fix)
        self.metadata: WorkloadMetadata = parse_metadata(stored, where=str(path))

    @property
    def num_requests(self) -> int:
        return int(self._file.metadata.num_rows)

    def read(self) -> pa.Table:
        """The whole table in our schema, unchecked."""
        return conform(self._read_all(), where=str(self.path))

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """One table a row group, all our columns present (null where not asked for), unchecked."""
        present = None if columns is None else [c for c in ("request_id", *columns) if c in self._columns]
        for group in range(self._file.num_row_groups):
            yield conform(self._read_group(group, present), where=str(self.path))

    @property
    def _columns(self) -> set[str]:
        return set(self._file.schema_arrow.names)

    def _read_all(self) -> pa.Table:
        try:
            return self._file.read().replace_schema_metadata(None)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self.path, error) from None

    def _read_group(self, group: int, columns: list[str] | None) -> pa.Table:
        try:
            return self._file.read_row_group(group, columns=columns).replace_schema_metadata(None)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self.path, error) from None


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open any parquet file.

    Raises:
        WorkloadError: missing, unreadable, truncated, or not parquet.
    """
    if not path.is_file():
        raise WorkloadError(f"no file {path}", fix="Give the path of a workload .parquet file")
    try:
        return pq.ParquetFile(path)
    except PermissionError:
        raise WorkloadError(f"{path} cannot be read", fix="Check its permissions") from None
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> WorkloadError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    fix = "Check that the file is a parquet file and was copied whole; import other formats with fopt import"
    return WorkloadError(f"{path} is truncated or not parquet: {reason.rstrip('.')}", fix=fix)
