"""What traces with a time, two lengths and block hashes share: their steps of time and sizes of blocks.

Does not know which trace it is.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from workloads.errors import WorkloadError
from workloads.importers.json_lines import object_of
from workloads.importers.rows import Row
from workloads.importers.source_file import byte_lines

BLOCK_SIZES = (512, 256, 128, 64, 32, 16)
LOOKED_AT = 10_000  # rows
HALF = 0.5
_MOST = 0.95  # of the rows looked at: a few may be damaged


def first_rows(path: Path, num_rows: int = LOOKED_AT) -> list[Row]:
    """The rows of a JSON Lines file's first lines, without those that cannot be read."""
    rows: list[Row] = []
    with contextlib.suppress(WorkloadError, OSError):
        for number, line in itertools.islice(byte_lines(path), num_rows):
            with contextlib.suppress(WorkloadError):
                rows.append(object_of(path, number, line))
    return rows


def mostly(flags: Iterable[bool], share: float = _MOST) -> bool:
    """Whether at least that share of them is true, and any."""
    given = list(flags)
    return any(given) and sum(given) >= share * len(given)


def is_lengths(row: Row) -> bool:
    """Whether the row is a time and two lengths."""
    return all(type(row.get(name)) in (int, float) for name in ("timestamp", "input_length", "output_length"))


def fitting_block_size(rows: Sequence[Row]) -> int | None:
    """The largest usual size of which every row's hashes are its blocks, the last one whole or not.

    Where no size fits every row, the largest that fits nearly all: the others are damaged.
    """
    fits = [(size, hashes_fit(rows, size)) for size in BLOCK_SIZES]
    whole = next((size for size, found in fits if found and all(found)), None)
    return whole or next((size for size, found in fits if mostly(found)), None)


def hashes_fit(rows: Sequence[Row], size: int) -> list[bool]:
    """Of each row with hashes whether their number fits its input length."""
    hashed = [(row["input_length"], len(row["hash_ids"])) for row in rows if isinstance(row.get("hash_ids"), list)]
    return [tokens // size <= count <= -(-tokens // size) for tokens, count in hashed]


def time_step(rows: Sequence[Row], unit_s: float) -> float:
    """The step, in seconds, that whole-numbered stamps are near multiples of; the unit itself when there is none.

    The published Mooncake conversation stamps are 3 s apart give or take a millisecond, many requests to a stamp.
    """
    stamps = np.unique([row["timestamp"] for row in rows if type(row.get("timestamp")) is int])
    if len(stamps) < 10 or len(rows) < 2 * len(stamps):  # too few, or mostly told apart
        return unit_s
    gaps = np.diff(stamps)
    step = float(np.median(gaps))
    off = np.abs(gaps - np.round(gaps / step) * step)
    return step * unit_s if float((off <= max(1.0, 0.002 * step)).mean()) >= 0.95 else unit_s
