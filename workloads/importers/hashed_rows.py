"""What traces with a time, two lengths and block hashes share: their steps of time and sizes of blocks.

Does not know which trace it is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from workloads.errors import WorkloadError
from workloads.importers.json_lines import json_lines
from workloads.importers.rows import Row

BLOCK_SIZES = (512, 256, 128, 64, 32, 16)
LOOKED_AT = 10_000  # rows


def first_rows(path: Path, num_rows: int = LOOKED_AT) -> list[Row]:
    """The first rows of a JSON Lines file; none where it cannot be read."""
    rows: list[Row] = []
    try:
        rows.extend(row for _, row in itertools.islice(json_lines(path), num_rows))
    except (WorkloadError, OSError):
        return rows
    return rows


def is_lengths(row: Row) -> bool:
    """Whether the row is a time and two lengths."""
    return all(type(row.get(name)) in (int, float) for name in ("timestamp", "input_length", "output_length"))


def fitting_block_size(rows: Sequence[Row]) -> int | None:
    """The largest usual size of which every row's hashes are its blocks, the last one whole or not."""
    return next((size for size in BLOCK_SIZES if hashes_fit(rows, size)), None)


def hashes_fit(rows: Sequence[Row], size: int) -> bool:
    """Whether every row's number of hashes fits its input length."""
    hashed = [(row["input_length"], len(row["hash_ids"])) for row in rows if isinstance(row.get("hash_ids"), list)]
    return bool(hashed) and all(tokens // size <= count <= -(-tokens // size) for tokens, count in hashed)


def time_step(rows: Sequence[Row], unit_s: float) -> float:
    """The step, in seconds, that all whole-numbered stamps are multiples of; the unit itself at least."""
    stamps = [row["timestamp"] for row in rows if type(row.get("timestamp")) is int]
    if len(stamps) < len(rows) or len(rows) < 100:  # too few to tell a step from chance
        return unit_s
    return math.gcd(*(stamp - stamps[0] for stamp in stamps)) * unit_s or unit_s
