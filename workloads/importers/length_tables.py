"""Traces of times and two lengths as tables, a block of the CSV at a time: what makes ten million rows bearable.

Does not explain what is wrong with a file: what it cannot take, the importers that read row by row can, or can name.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from workloads.columns import conform
from workloads.importers.source_file import text_lines

_BLOCK_BYTES = 4 << 20


class NotPlainError(Exception):
    """The file has more than times and lengths, or something wrong with it: read it row by row."""


def azure_tables(path: Path) -> Iterator[pa.Table]:
    """`TIMESTAMP,ContextTokens,GeneratedTokens`: in order of time, nothing failed, no images.

    Raises:
        NotPlainError: anything else.
    """
    stamp = _first_row(path, ("TIMESTAMP", "ContextTokens", "GeneratedTokens"))["TIMESTAMP"]
    zoned = stamp.endswith(("Z", "+00:00"))
    kinds = {
        "TIMESTAMP": pa.timestamp("ns", "UTC" if zoned else None),
        "ContextTokens": pa.int32(),
        "GeneratedTokens": pa.int32(),
    }
    tenant = next((name for name in ("code", "conv") if name in path.stem.lower()), None)
    zero: int | None = None
    for number, batch in _numbered(_batches(path, kinds)):
        ticks = np.asarray(batch.column("TIMESTAMP").cast(pa.int64()).to_numpy(), np.int64) // 100  # of 0.1 µs
        zero = int(ticks[0]) if zero is None else zero
        arrivals = (ticks - zero) / 10**7
        yield _table(number, arrivals, batch.column("ContextTokens"), batch.column("GeneratedTokens"), tenant)


def vidur_tables(path: Path) -> Iterator[pa.Table]:
    """`arrived_at,num_prefill_tokens,num_decode_tokens`, in order of time.

    Raises:
        NotPlainError: anything else.
    """
    _first_row(path, ("arrived_at", "num_prefill_tokens", "num_decode_tokens"))
    kinds = {"arrived_at": pa.float64(), "num_prefill_tokens": pa.int32(), "num_decode_tokens": pa.int32()}
    zero: float | None = None
    for number, batch in _numbered(_batches(path, kinds)):
        stamps = np.asarray(batch.column("arrived_at").to_numpy(), np.float64)
        if not (np.isfinite(stamps) & (stamps >= 0)).all():
            raise NotPlainError
        zero = float(stamps[0]) if zero is None else zero
        arrivals = stamps - zero
        yield _table(number, arrivals, batch.column("num_prefill_tokens"), batch.column("num_decode_tokens"), None)


def _first_row(path: Path, needed: tuple[str, ...]) -> dict[str, str]:
    try:
        row = next(csv.DictReader(text_lines(path)), None)
    except (OSError, ValueError, csv.Error):
        raise NotPlainError from None
    if row is None or any(not row.get(name) for name in needed) or row.get("NumImages") is not None:
        raise NotPlainError
    return row


def _batches(path: Path, kinds: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    convert = pa_csv.ConvertOptions(column_types=kinds, include_columns=list(kinds))
    try:
        with pa_csv.open_csv(
            path, read_options=pa_csv.ReadOptions(block_size=_BLOCK_BYTES), convert_options=convert
        ) as reader:
            for batch in reader:
                if any(column.null_count for column in batch.columns):
                    raise NotPlainError
                if len(batch):
                    yield batch
    except (pa.ArrowException, OSError):
        raise NotPlainError from None


def _numbered(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Each batch and the number of its first row."""
    number = 0
    for batch in batches:
        yield number, batch
        number += len(batch)


def _table(
    number: int, arrivals: npt.NDArray[np.float64], inputs: pa.Array, outputs: pa.Array, tenant: str | None
) -> pa.Table:
    if arrivals[0] < 0 or (np.diff(arrivals) < 0).any() or pc.min(inputs).as_py() < 1 or pc.min(outputs).as_py() < 0:
        raise NotPlainError
    columns = {
        "request_id": pa.array(np.arange(number, number + len(arrivals))).cast(pa.string()),
        "arrival_s": pa.array(arrivals),
        "input_tokens": inputs,
        "output_tokens": outputs,
    }
    if tenant is not None:
        columns["tenant"] = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(arrivals), np.int32)), [tenant])
    return conform(pa.table(columns), where="trace")
