"""JSON Lines of times, two lengths and block hashes as tables, a block of lines at a time.

Does not explain what is wrong with a file: what it cannot take, the importers that read row by row can, or can name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.json as pa_json

from workloads.columns import conform
from workloads.importers.length_tables import NotPlainError, length_columns
from workloads.importers.source_file import open_source

_BLOCK_BYTES = 4 << 20
LENGTHS = pa.schema([("input_length", pa.int32()), ("output_length", pa.int32()), ("hash_ids", pa.list_(pa.int64()))])
_COLUMNS = pa.schema([("timestamp", pa.float64()), *LENGTHS])


def mooncake_tables(path: Path) -> Iterator[pa.Table]:
    """`timestamp` in ms, `input_length`, `output_length`, `hash_ids`, nothing else.

    Raises:
        NotPlainError: anything else.
    """
    return _tables(path, units_a_second=1000)


def timed_trace_tables(path: Path) -> Iterator[pa.Table]:
    """As Mooncake's, in seconds.

    Raises:
        NotPlainError: anything else.
    """
    return _tables(path, units_a_second=1)


def _tables(path: Path, *, units_a_second: int) -> Iterator[pa.Table]:
    number = 0
    for batch in json_batches(path, _COLUMNS):
        stamps = np.asarray(batch.column("timestamp").to_numpy(zero_copy_only=False), np.float64)
        if not (np.isfinite(stamps) & (stamps >= 0)).all():
            raise NotPlainError
        arrivals = stamps / units_a_second
        columns = length_columns(number, arrivals, batch.column("input_length"), batch.column("output_length"))
        hashes = batch.column("hash_ids")
        if hashes.null_count < len(hashes):
            if hashes.flatten().null_count:
                raise NotPlainError
            columns["prefix_hashes"] = hashes
        yield conform(pa.table(columns), where="trace")
        number += len(batch)


def json_batches(path: Path, columns: pa.Schema, *, ignore_others: bool = False) -> Iterator[pa.RecordBatch]:
    """These fields of JSON Lines, a block at a time; those that no row has are null.

    Raises:
        NotPlainError: no JSON, a value of another type, or other fields that are not to be ignored.
    """
    read = pa_json.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False)
    others = "ignore" if ignore_others else "error"
    parse = pa_json.ParseOptions(explicit_schema=columns, unexpected_field_behavior=others)
    try:
        with open_source(path) as file, pa_json.open_json(file, read_options=read, parse_options=parse) as reader:
            for batch in reader:
                if len(batch):
                    yield batch
    except (pa.ArrowException, OSError):
        raise NotPlainError from None
