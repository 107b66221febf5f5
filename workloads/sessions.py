"""Session ids as 64-bit keys, so that millions of them fit in memory.

Does not know turns or arrivals.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def session_keys(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """One key a row, equal for equal ids and different between processes; a null has the key of no id, 0."""
    codes = column.combine_chunks().dictionary_encode()
    codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
    names = codes.dictionary.to_pylist()
    keys = np.fromiter((hash(name) or 1 for name in names), np.int64, len(names))
    if not len(keys):
        return np.zeros(len(column), np.int64)
    rows = np.asarray(codes.indices.fill_null(-1).to_numpy(zero_copy_only=False), np.int64)
    return np.where(rows >= 0, keys[rows], 0)
