"""Imports what is in order of time straight into a file: memory is bounded by a block of rows and some bytes a row.

Does not know traces out of order, or with links to later rows: those are read whole (`import_workload`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workloads.capabilities import derive_capabilities, derive_content, is_sendable
from workloads.errors import WorkloadError
from workloads.importers.call_import import CallsImporter, imported_in_order
from workloads.importers.clock import clock_notes
from workloads.importers.hashed_tables import mooncake_tables, timed_trace_tables
from workloads.importers.importer import Imported, Importer
from workloads.importers.length_tables import NotPlainError, azure_tables, burstgpt_tables, vidur_tables
from workloads.importers.repaired_table import table_of, without_broken_rows
from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.importers.session_tables import bailian_tables, burstgpt_session_tables
from workloads.importers.stream_links import StreamLinks
from workloads.metadata import WorkloadMetadata
from workloads.parquet import write_tables_atomically
from workloads.request import Request
from workloads.tokenizer import TokenCounter
from workloads.validation import validate_rows

# Rows without links; with links, some of which may be told as lost.
Tables = Callable[[Path], Iterator[pa.Table]]
LinkedTables = Callable[[Path, list[str]], Iterator[pa.Table]]

PLAIN_TABLES: Mapping[str, Tables] = {
    "azure": azure_tables,
    "burstgpt": burstgpt_tables,
    "mooncake": mooncake_tables,
    "vidur": vidur_tables,
    "vllm-timed-trace": timed_trace_tables,
}
SESSION_TABLES: Mapping[str, LinkedTables] = {
    "burstgpt": burstgpt_session_tables,
    "qwen-bailian": bailian_tables,
}
# Their importers read row by row, and what links rows points back.
ROW_BY_ROW = frozenset(
    (*PLAIN_TABLES, *SESSION_TABLES, "agent-sessions", "aiperf", "fine-tuning", "guidellm", "sharegpt", "vllm-custom")
)
_BATCH_ROWS = 8192


def import_streamed(
    path: Path,
    output: Path,
    importer: Importer,
    *,
    tokenizer: TokenCounter | None = None,
    repairs: Repairs = NO_REPAIRS,
    update: Mapping[str, object],
    saw: Callable[[int], None] = lambda _: None,
    restart: Callable[[], None] = lambda: None,
) -> tuple[int, WorkloadMetadata] | None:
    """Write `output`, or None, and nothing, where the trace has to be read whole.

    Args:
        repairs: takes what is wrong with single rows; files that need more are read whole.
        update: fields of the metadata.
        saw: told the number of rows each time some are written.
        restart: told when rows are counted from 0 again.

    Returns:
        The number of requests and the metadata as written.

    Raises:
        WorkloadError: a row that is not of the format, or the folder cannot be written.
    """
    for read in _readers(importer.name):
        with contextlib.suppress(WorkloadError) if repairs.allowed else contextlib.nullcontext():
            imported = importer.read(path)
            tables = read(path, imported.losses)
            told = {"repairs": dict(repairs.counts), **update}
            if found := _Stream(path, imported, told).write(output, tables, saw):
                return found
        restart()
    if importer.name in ROW_BY_ROW:
        imported = importer.read(path, tokenizer=tokenizer, repairs=repairs)
        return _row_by_row(path, output, imported, repairs, update, saw)
    if isinstance(importer, CallsImporter) and (log := imported_in_order(importer, path, tokenizer, repairs)):
        return _row_by_row(path, output, log, repairs, update, saw)
    return None


def _row_by_row(
    path: Path,
    output: Path,
    imported: Imported,
    repairs: Repairs,
    update: Mapping[str, object],
    saw: Callable[[int], None],
) -> tuple[int, WorkloadMetadata] | None:
    tables = _batches(imported.requests, repairs, str(path))
    return _Stream(path, imported, update, repairs, StreamLinks()).write(output, tables, saw)


def _readers(name: str) -> Iterator[LinkedTables]:
    """What reads the format as tables, the fastest first."""
    if name in PLAIN_TABLES:
        plain = PLAIN_TABLES[name]
        yield lambda path, _: plain(path)
    if name in SESSION_TABLES:
        yield SESSION_TABLES[name]


def _batches(requests: Iterator[Request], repairs: Repairs, where: str) -> Iterator[pa.Table]:
    batch: list[Request] = []
    for request in requests:
        batch.append(request)
        if len(batch) == _BATCH_ROWS:
            yield table_of(batch, repairs, where)
            batch = []
    if batch:
        yield table_of(batch, repairs, where)


@dataclass
class _Stream:
    """One file being written: rows checked by themselves, arrivals counted from the first, in order."""

    path: Path
    imported: Imported
    update: Mapping[str, object]
    repairs: Repairs = NO_REPAIRS
    links: StreamLinks | None = None  # None: they are sure to fit
    num_rows: int = 0
    zero: float | None = None
    parts: list[npt.NDArray[np.float64]] = field(default_factory=list)  # arrivals
    contents: set[str] = field(default_factory=set)
    capabilities: list[set[str]] = field(default_factory=list)
    all_sendable: bool = True

    def write(
        self, output: Path, tables: Iterator[pa.Table], saw: Callable[[int], None]
    ) -> tuple[int, WorkloadMetadata] | None:
        try:
            write_tables_atomically(output, self._checked(tables, saw), lambda: self._metadata)
        except NotPlainError:
            return None
        return self.num_rows, self._metadata

    def _checked(self, tables: Iterator[pa.Table], saw: Callable[[int], None]) -> Iterator[pa.Table]:
        for table in tables:
            if self.repairs.allowed:
                found = self.imported.metadata
                where, first = str(self.path), self.num_rows
                table = without_broken_rows(table, found, self.repairs, where=where, first_row=first)
                if not len(table):
                    continue
            moved = self._from_zero(table)
            try:
                validate_rows(moved, self.imported.metadata, where=str(self.path), first_row=self.num_rows)
            except WorkloadError as error:
                self.repairs.take("row_impossible", error)  # raises it, as repaired rows are possible
                raise
            self.contents.add(derive_content(moved))
            self.capabilities.append(set(derive_capabilities(moved)))
            self.all_sendable = self.all_sendable and is_sendable(moved)
            self.num_rows += len(moved)
            if self.links is not None:
                self.links.add(moved)
            yield moved
            saw(len(moved))
        if not self.num_rows or len(self.contents) > 1 or not (self.links is None or self.links.fit()):
            raise NotPlainError

    def _from_zero(self, table: pa.Table) -> pa.Table:
        """Arrivals from the first one; all have one, in order, or none has."""
        column = table.column("arrival_s")
        if column.null_count == len(column) and self.zero is None:
            return table
        times = np.asarray(column.to_numpy(), np.float64)
        last = self.parts[-1][-1] if self.parts else -np.inf
        if column.null_count or (self.zero is None and self.num_rows) or times[0] < last or (np.diff(times) < 0).any():
            raise NotPlainError
        self.zero = float(times[0]) if self.zero is None else self.zero
        self.parts.append(times)
        if not self.zero:
            return table
        place = table.schema.get_field_index("arrival_s")
        return table.set_column(place, table.schema.field(place), pc.subtract(column, self.zero))

    def _arrivals(self) -> npt.NDArray[np.float64]:
        """All of them; their parts are let go."""
        found = np.concatenate(self.parts)
        self.parts.clear()
        return found

    def _clock_notes(self) -> list[str]:
        try:
            return clock_notes(self._arrivals(), str(self.path)) if self.parts else []
        except WorkloadError:
            if self.repairs.allowed:
                raise NotPlainError from None
            raise

    @functools.cached_property
    def _metadata(self) -> WorkloadMetadata:
        found = self.imported.metadata
        notes = self._clock_notes()
        # every batch can drive what the whole can; answers or parents are needed only in some
        every, some = set.intersection(*self.capabilities), set.union(*self.capabilities)
        enough = {"quality", "closed_loop"} if self.all_sendable else {"quality"}
        found_able = every - {"closed_loop"} | some & enough
        able = tuple(c for c in ("open_loop", "closed_loop", "prefix", "quality") if c in found_able)
        losses = (*found.losses, *self.imported.losses, *notes)
        known = {
            "content": self.contents.copy().pop(),
            "capabilities": able,
            "losses": losses,
            "repairs": dict(self.repairs.counts),
        }
        return found.model_copy(update={**known, **self.update})
