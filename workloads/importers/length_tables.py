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
from workloads.importers.source_file import open_source, text_lines
from workloads.request import json_text

_BLOCK_BYTES = 4 << 20


class NotPlainError(Exception):
    """The file has more than times and lengths, or something wrong with it: read it row by row."""


def azure_tables(path: Path) -> Iterator[pa.Table]:
    """`TIMESTAMP,ContextTokens,GeneratedTokens`: nothing failed, no images.

    Raises:
        NotPlainError: anything else.
    """
    stamp = first_csv_row(path, ("TIMESTAMP", "ContextTokens", "GeneratedTokens"), without=("NumImages",))["TIMESTAMP"]
    zoned = stamp.endswith(("Z", "+00:00"))
    kinds = {
        "TIMESTAMP": pa.timestamp("ns", "UTC" if zoned else None),
        "ContextTokens": pa.int32(),
        "GeneratedTokens": pa.int32(),
    }
    tenant = next((name for name in ("code", "conv") if name in path.stem.lower()), None)
    zero: int | None = None
    for number, batch in _numbered(csv_batches(path, kinds)):
        ticks = np.asarray(batch.column("TIMESTAMP").cast(pa.int64()).to_numpy(), np.int64) // 100  # of 0.1 µs
        zero = int(ticks[0]) if zero is None else zero
        arrivals = (ticks - zero) / 10**7
        columns = length_columns(number, arrivals, batch.column("ContextTokens"), batch.column("GeneratedTokens"))
        if tenant is not None:
            columns["tenant"] = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(batch), np.int32)), [tenant])
        yield conform(pa.table(columns), where="trace")


def vidur_tables(path: Path) -> Iterator[pa.Table]:
    """`arrived_at,num_prefill_tokens,num_decode_tokens`.

    Raises:
        NotPlainError: anything else.
    """
    first_csv_row(path, ("arrived_at", "num_prefill_tokens", "num_decode_tokens"))
    kinds = {"arrived_at": pa.float64(), "num_prefill_tokens": pa.int32(), "num_decode_tokens": pa.int32()}
    for number, batch in _numbered(csv_batches(path, kinds)):
        stamps = _times(batch.column("arrived_at"))
        columns = length_columns(number, stamps, batch.column("num_prefill_tokens"), batch.column("num_decode_tokens"))
        yield conform(pa.table(columns), where="trace")


def burstgpt_tables(path: Path) -> Iterator[pa.Table]:
    """`Timestamp,Model,Request tokens,Response tokens,...,Log Type`; no sessions, nothing failed without its prompt.

    Raises:
        NotPlainError: anything else.
    """
    needed = ("Timestamp", "Model", "Request tokens", "Response tokens", "Log Type")
    first_csv_row(path, needed, without=("Session ID", "Elapsed time"))
    word = pa.dictionary(pa.int32(), pa.string())
    kinds = {
        "Timestamp": pa.float64(),
        "Model": word,
        "Request tokens": pa.int32(),
        "Response tokens": pa.int32(),
        "Log Type": word,
    }
    for number, batch in _numbered(csv_batches(path, kinds)):
        outputs = batch.column("Response tokens")
        columns = length_columns(number, _times(batch.column("Timestamp")), batch.column("Request tokens"), outputs)
        columns["model"] = batch.column("Model")
        failed = pc.equal(outputs, 0).cast(pa.int32())
        columns["status"] = pa.DictionaryArray.from_arrays(failed, ["ok", "error"])
        columns["extra"] = request_types(batch.column("Log Type"))
        yield conform(pa.table(columns), where="trace")


def request_types(column: pa.DictionaryArray) -> pa.Array:
    """Each row's type as JSON, null where it has none."""
    written = [json_text({"request_type": kind}) for kind in column.dictionary.to_pylist()]
    return pa.array(written, pa.large_string()).take(column.indices)


def _times(column: pa.Array) -> npt.NDArray[np.float64]:
    stamps = np.asarray(column.to_numpy(), np.float64)
    if not np.isfinite(stamps).all():
        raise NotPlainError
    return stamps


def first_csv_row(path: Path, needed: tuple[str, ...], *, without: tuple[str, ...] = ()) -> dict[str, str]:
    """The first row, which has all that is needed.

    Raises:
        NotPlainError: it has not, or has what it should be without.
    """
    try:
        row = next(csv.DictReader(text_lines(path)), None)
    except (OSError, ValueError, csv.Error):
        raise NotPlainError from None
    if row is None or any(not row.get(name) for name in needed) or any(name in row for name in without):
        raise NotPlainError
    return row


def csv_batches(
    path: Path, kinds: dict[str, pa.DataType], *, may_be_null: tuple[str, ...] = ()
) -> Iterator[pa.RecordBatch]:
    """These columns of a CSV, a block at a time.

    Raises:
        NotPlainError: no CSV, a column that is missing, or a cell that is empty or of another type.
    """
    convert = pa_csv.ConvertOptions(
        column_types=kinds, include_columns=list(kinds), strings_can_be_null=True, null_values=[""]
    )
    try:
        with (
            open_source(path) as file,
            pa_csv.open_csv(
                file, read_options=pa_csv.ReadOptions(block_size=_BLOCK_BYTES), convert_options=convert
            ) as reader,
        ):
            for batch in reader:
                if any(batch.column(name).null_count for name in kinds if name not in may_be_null):
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


def length_columns(
    number: int, arrivals: npt.NDArray[np.float64], inputs: pa.Array, outputs: pa.Array
) -> dict[str, pa.Array]:
    """The columns that all these traces have; requests are named by their row.

    Args:
        number: of the first row.

    Raises:
        NotPlainError: a length is missing, negative, or zero where that would be no request.
    """
    if inputs.null_count or outputs.null_count or pc.min(inputs).as_py() < 1 or pc.min(outputs).as_py() < 0:
        raise NotPlainError
    return {
        "request_id": pa.array(np.arange(number, number + len(arrivals))).cast(pa.string()),
        "arrival_s": pa.array(arrivals),
        "input_tokens": inputs,
        "output_tokens": outputs,
    }
