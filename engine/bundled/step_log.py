"""`StepLog`: what every engine step was made of and how long it took: what a step-time model is calibrated on.

Does not know what the figures are used for; imports no torch.
"""

from __future__ import annotations

import io
from collections.abc import Sequence as Seq
from math import isnan, nan
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from engine.bundled.model_runner import StepResult
    from engine.bundled.scheduler import ScheduledSequence

MAX_STEPS = 100_000  # the latest ones are kept


class StepRecord(NamedTuple):
    """One step. Context tokens are those already in the cache before it, summed over sequences."""

    start_s: float  # since the log began
    duration_s: float  # scheduling, drafting, the model's pass and drawing
    gap_s: float | None  # until the next step began: outputs handed over; None when the engine was idle after it
    num_added_seqs: int  # requests that came since the step before
    num_prefill_seqs: int
    num_prefill_tokens: int
    num_prefill_context_tokens: int
    num_decode_seqs: int
    num_decode_context_tokens: int
    num_draft_tokens: int
    num_new_tokens: int  # drawn or accepted, before stops cut them


_GAP = StepRecord._fields.index("gap_s")


class StepLog:
    """The latest `MAX_STEPS` steps; those that score tokens are left out, as serving does not.

    Args:
        zero_s: the clock's reading that is second 0, on the clock that `add` is given.
    """

    def __init__(self, zero_s: float, max_steps: int = MAX_STEPS) -> None:
        self._zero_s = zero_s
        self._rows = np.empty((max_steps, len(StepRecord._fields)))  # a ring; memory is taken as it is written
        self._num_steps = 0  # ever
        self._num_added = 0
        self._last_end_s: float | None = None  # of the step before, where it was logged and work was left

    def __len__(self) -> int:
        return min(self._num_steps, len(self._rows))

    def request_added(self, *, to_idle: bool) -> None:
        """Note a request that was queued; `to_idle`: while no other was unfinished."""
        self._num_added += 1
        if to_idle:
            self._last_end_s = None

    def add(self, scheduled: Seq[ScheduledSequence], results: Seq[StepResult], *, begin_s: float, end_s: float) -> None:
        """Note a step; the sequences are as they were scheduled, not yet advanced."""
        if self._last_end_s is not None:
            self._rows[(self._num_steps - 1) % len(self._rows), _GAP] = begin_s - self._last_end_s
        num_added, self._num_added, self._last_end_s = self._num_added, 0, None
        if any(result.logprobs is not None or result.prompt_logprobs for result in results):
            return
        duration_s, composition = end_s - begin_s, _composition(scheduled, results)
        row = (begin_s - self._zero_s, duration_s, nan, num_added, *composition)
        self._rows[self._num_steps % len(self._rows)] = row
        self._num_steps += 1
        self._last_end_s = end_s

    def records(self) -> list[StepRecord]:
        """Oldest first."""
        oldest = self._num_steps % len(self._rows) if self._num_steps > len(self._rows) else 0
        rows = np.roll(self._rows[: len(self)], -oldest, axis=0).tolist()
        return [
            StepRecord(start_s, duration_s, None if isnan(gap_s) else gap_s, *map(int, counts))
            for start_s, duration_s, gap_s, *counts in rows
        ]


def _composition(scheduled: Seq[ScheduledSequence], results: Seq[StepResult]) -> tuple[int, ...]:
    """The counts of a `StepRecord`, from `num_prefill_seqs` on."""
    prefill_seqs = prefill_tokens = prefill_context = decode_seqs = decode_context = drafted = new = 0
    for item, result in zip(scheduled, results, strict=True):
        sequence = item.sequence
        if item.decodes:
            decode_seqs += 1
            decode_context += sequence.num_computed_tokens
        else:
            prefill_seqs += 1
            prefill_tokens += item.num_tokens
            prefill_context += sequence.num_computed_tokens
        drafted += result.num_drafted
        new += len(result.token_ids)
    return prefill_seqs, prefill_tokens, prefill_context, decode_seqs, decode_context, drafted, new


def to_parquet(records: Seq[StepRecord]) -> bytes:
    """A parquet file with a row a step and `StepRecord`'s fields as columns."""
    import pyarrow as pa  # tens of milliseconds that serving never needs
    import pyarrow.parquet as pq

    types = dict.fromkeys(("start_s", "duration_s", "gap_s"), pa.float64())
    schema = pa.schema([(name, types.get(name, pa.int64())) for name in StepRecord._fields])
    columns = list(zip(*records, strict=True)) or [()] * len(schema)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), sink)
    return sink.getvalue()


def from_parquet(data: bytes) -> list[StepRecord]:
    """What `to_parquet` wrote.

    Raises:
        ValueError: not such a file, or one of an older version.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data), use_threads=False, pre_buffer=False)
    except pa.ArrowException as error:
        raise ValueError(f"not a step log: {str(error).splitlines()[0]}") from None
    missing = [name for name in StepRecord._fields if name not in table.column_names]
    if len(missing) == len(StepRecord._fields):
        raise ValueError("not a step log: it has none of its columns")
    if missing:
        raise ValueError(f"a step log of an older version, without {' and '.join(missing)}: measure the trial again")
    table = table.select(list(StepRecord._fields))
    return [StepRecord(*row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]
