"""`RecordArrays`: request records as columns, with the per-request latencies that every metric is made of.

Does not know summaries (`metrics.py`) or intervals (`estimate.py`). A simulator may build one directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from workloads.records import RequestRecord

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

LatencyMetric = Literal["ttft", "tpot", "itl", "e2el", "schedule_lag"]
LATENCY_METRICS: tuple[LatencyMetric, ...] = get_args(LatencyMetric)


class Samples(NamedTuple):
    """Values of one latency in seconds and the request (row) each belongs to."""

    values: Floats
    owners: Ints


@dataclass(frozen=True, kw_only=True)
class RecordArrays:
    """One entry a request; token times of all requests lie end to end, request i's from offsets[i] to offsets[i+1]."""

    request_ids: tuple[str, ...]
    slo_classes: tuple[str | None, ...]
    statuses: tuple[str, ...]
    intended_start_s: Floats
    sent_s: Floats
    end_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    token_times_s: Floats
    token_offsets: Ints  # (num_requests + 1,)

    @classmethod
    def from_records(cls, records: Sequence[RequestRecord]) -> RecordArrays:
        counts = np.fromiter((len(r.token_times_s) for r in records), np.int64, len(records))
        times = chain.from_iterable(r.token_times_s for r in records)
        return cls(
            request_ids=tuple(r.request_id for r in records),
            slo_classes=tuple(r.slo_class for r in records),
            statuses=tuple(r.status for r in records),
            intended_start_s=np.array([r.intended_start_s for r in records], np.float64),
            sent_s=np.array([r.sent_s for r in records], np.float64),
            end_s=np.array([r.end_s for r in records], np.float64),
            input_tokens=np.array([r.input_tokens for r in records], np.int64),
            output_tokens=np.array([r.output_tokens for r in records], np.int64),
            token_times_s=np.fromiter(times, np.float64, int(counts.sum())),
            token_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        )

    def __len__(self) -> int:
        return len(self.request_ids)

    @cached_property
    def completed(self) -> Mask:
        """Status ok and at least one token."""
        ok = np.fromiter((s == "ok" for s in self.statuses), bool, len(self))
        return ok & (self.num_times > 0)

    @cached_property
    def counted(self) -> Mask:
        """Requests that enter the counts: all but the cut and the cancelled, which leave both sides of a ratio."""
        return np.fromiter((s not in ("cut", "cancelled") for s in self.statuses), bool, len(self))

    @cached_property
    def num_times(self) -> Ints:
        return np.diff(self.token_offsets)

    @cached_property
    def ttft_s(self) -> Floats:
        """First token − intended start; NaN where not completed."""
        first = self._token_time(self.token_offsets[:-1])
        return np.where(self.completed, first - self.intended_start_s, np.nan)

    @cached_property
    def e2el_s(self) -> Floats:
        """Last token − intended start; NaN where not completed."""
        last = self._token_time(self.token_offsets[1:] - 1)
        return np.where(self.completed, last - self.intended_start_s, np.nan)

    @cached_property
    def tpot_s(self) -> Floats:
        """(E2EL − TTFT) / (output tokens − 1); NaN where fewer than two tokens."""
        defined = self.completed & (self.output_tokens > 1)
        gaps = np.where(defined, self.output_tokens - 1, 1)
        return np.where(defined, (self.e2el_s - self.ttft_s) / gaps, np.nan)

    @cached_property
    def schedule_lag_s(self) -> Floats:
        """Sent − intended start; NaN where cut or cancelled."""
        return np.where(self.counted, self.sent_s - self.intended_start_s, np.nan)

    def samples(self, metric: LatencyMetric) -> Samples:
        """The defined values of a latency: one a request, for `itl` one a gap between two tokens."""
        if metric == "itl":
            return self._gaps
        values: Floats = getattr(self, f"{metric}_s")
        owners = np.flatnonzero(~np.isnan(values))
        return Samples(values[owners], owners)

    @cached_property
    def _gaps(self) -> Samples:
        """Raw gaps between consecutive output tokens; tokens that came in one chunk are 0 apart."""
        if len(self.token_times_s) < 2:
            return Samples(np.empty(0), np.empty(0, np.int64))
        owners = np.repeat(np.arange(len(self)), self.num_times)
        inside = (owners[1:] == owners[:-1]) & self.completed[owners[1:]]
        return Samples(np.diff(self.token_times_s)[inside], owners[1:][inside])

    def _token_time(self, index: Ints) -> Floats:
        if not len(self.token_times_s):
            return np.full(len(self), np.nan)
        return self.token_times_s[np.clip(index, 0, len(self.token_times_s) - 1)]

    def take(self, rows: Ints) -> RecordArrays:
        """The requests at these rows, repeats allowed."""
        counts = self.num_times[rows]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        tokens = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - self.token_offsets[rows], counts)
        return RecordArrays(
            request_ids=tuple(self.request_ids[row] for row in rows),
            slo_classes=tuple(self.slo_classes[row] for row in rows),
            statuses=tuple(self.statuses[row] for row in rows),
            intended_start_s=self.intended_start_s[rows],
            sent_s=self.sent_s[rows],
            end_s=self.end_s[rows],
            input_tokens=self.input_tokens[rows],
            output_tokens=self.output_tokens[rows],
            token_times_s=self.token_times_s[tokens],
            token_offsets=offsets,
        )


def as_arrays(records: Sequence[RequestRecord] | RecordArrays) -> RecordArrays:
    """Columns of the records; arrays pass through."""
    return records if isinstance(records, RecordArrays) else RecordArrays.from_records(records)
