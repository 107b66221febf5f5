"""A sha256 that names the content of an arrow table, whatever its chunks, slices or dictionary order.

Does not know what the columns mean.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


def table_fingerprint(table: pa.Table) -> str:
    """sha256 in hex over column names, validity, lengths and values, in schema order."""
    digest = hashlib.sha256()
    for name, column in zip(table.column_names, table.columns, strict=True):
        digest.update(f"{name}:{len(column)};".encode())
        _feed(digest, column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)
    return digest.hexdigest()


def _feed(digest: _Hash, array: pa.Array) -> None:
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    kind = array.type
    digest.update(_bytes(array.is_valid().to_numpy(zero_copy_only=False)))
    if pa.types.is_dictionary(kind):
        _feed(digest, array.dictionary_decode())
    elif pa.types.is_list(kind):
        digest.update(_bytes(pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)))
        _feed(digest, pc.list_flatten(array))
    elif pa.types.is_struct(kind):
        for child in array.flatten():
            _feed(digest, child)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        digest.update(_bytes(pc.binary_length(array).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)))
        digest.update("".join(array.drop_null().to_pylist()).encode())
    else:
        digest.update(_bytes(array.fill_null(0).to_numpy(zero_copy_only=False)))


def _bytes(values: np.ndarray) -> bytes:
    return np.ascontiguousarray(values).tobytes()
