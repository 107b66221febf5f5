"""`RequestRecord`: what happened to one replayed request; timestamps only. And its parquet form.

Does not know statistics (`metrics.py`), prompts or responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from workloads.errors import WorkloadError
from workloads.parquet import open_parquet, write_table_atomically

RecordStatus = Literal["ok", "error", "cancelled", "timeout", "cut"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestRecord:
    """One replayed request; times are seconds on one monotonic clock that starts with the replay.

    `status`: ok; error (refused, failed or ended early); timeout (no end within the per-request limit); cut (in
    flight when the replay's limit or stop rule ended it); cancelled (its caller gave up).
    """

    request_id: str
    session_id: str | None = None
    turn: int | None = None
    slo_class: str | None = None
    intended_start_s: float  # the recorded arrival, or the parents' end + think time
    sent_s: float
    first_token_s: float | None = None
    token_times_s: tuple[float, ...] = ()  # one an output token; tokens of one chunk share its time
    end_s: float
    input_tokens: int
    output_tokens: int
    status: RecordStatus
    finish_reason: str | None = None
    http_status: int | None = None
    error: str | None = None


_KEY: Final = b"fireoptimizer.records"
_VERSION: Final = b"records/1"
_WORD = pa.dictionary(pa.int32(), pa.string())

RECORD_SCHEMA: Final = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        ("session_id", pa.string()),
        ("turn", pa.int32()),
        ("slo_class", _WORD),
        pa.field("intended_start_s", pa.float64(), nullable=False),
        pa.field("sent_s", pa.float64(), nullable=False),
        ("first_token_s", pa.float64()),
        pa.field("token_times_s", pa.list_(pa.float64()), nullable=False),
        pa.field("end_s", pa.float64(), nullable=False),
        pa.field("input_tokens", pa.int32(), nullable=False),
        pa.field("output_tokens", pa.int32(), nullable=False),
        pa.field("status", _WORD, nullable=False),
        ("finish_reason", _WORD),
        ("http_status", pa.int32()),
        ("error", pa.string()),
    ],
    metadata={_KEY: _VERSION},
)


def is_records_file(path: Path | str) -> bool:
    """Whether a parquet file says that it holds records.

    Raises:
        OSError, ValueError: it cannot be read, or is no parquet file.
    """
    return _KEY in (pq.read_schema(path).metadata or {})


def write_records(path: Path | str, records: Sequence[RequestRecord]) -> None:
    """Write records as parquet; the file appears whole or not at all.

    Raises:
        WorkloadError: the folder cannot be written.
    """
    columns = [pa.array([getattr(r, field.name) for r in records], field.type) for field in RECORD_SCHEMA]
    write_table_atomically(Path(path), pa.Table.from_arrays(columns, schema=RECORD_SCHEMA))


def read_records(path: Path | str) -> list[RequestRecord]:
    """Read what `write_records` wrote.

    Raises:
        WorkloadError: missing, truncated, or not a record file.
    """
    file = open_parquet(Path(path))
    version = (file.schema_arrow.metadata or {}).get(_KEY)
    if version != _VERSION:
        fix = f"Give a file that fopt wrote beside a trial ({_VERSION.decode()})"
        raise WorkloadError(f"{path} does not hold request records", fix=fix)
    columns: dict[str, list[Any]] = file.read().to_pydict()
    columns["token_times_s"] = [tuple(times) for times in columns["token_times_s"]]
    names = list(columns)
    return [RequestRecord(**dict(zip(names, row, strict=True))) for row in zip(*columns.values(), strict=True)]
