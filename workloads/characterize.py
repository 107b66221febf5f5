"""Finds a `WorkloadProfile`, from memory or a file row group by row group.

Does not know replays: the profile is of what was recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workloads.metadata import WorkloadMetadata
from workloads.parquet import WorkloadFile
from workloads.prefix_sharing import PrefixMeter
from workloads.profile import Arrivals, Drawing, Quantiles, Sessions, WorkloadProfile
from workloads.sessions import session_keys
from workloads.tokenizer import TokenCounter
from workloads.validation import validate_values
from workloads.workload import Workload

Floats = npt.NDArray[np.float64]

DISPERSION_WINDOWS_S: Final = (1, 10, 60, 300)
_MIN_WINDOWS: Final = 5
_NUM_TENANTS_TOLD: Final = 10
_NUMBERS: Final = ("arrival_s", "input_tokens", "output_tokens", "think_s")
_WORDS: Final = ("slo_class", "tenant", "model", "adapter", "status")


def characterize(workload: Workload, *, tokenizer: TokenCounter | None = None) -> WorkloadProfile:
    """The profile of a workload in memory.

    Args:
        tokenizer: makes prefix sharing of text exact in tokens.
    """
    return _profile(workload.metadata, [workload.table], tokenizer)


def characterize_file(path: Path | str, *, tokenizer: TokenCounter | None = None) -> WorkloadProfile:
    """The profile of a workload file, one row group in memory at a time; what rows say of each other is not checked.

    Raises:
        WorkloadError: missing, truncated or foreign file, or a row with an impossible value.
    """
    file = WorkloadFile(path)
    return _profile(file.metadata, _checked(file), tokenizer)


def _checked(file: WorkloadFile) -> Iterator[pa.Table]:
    num_rows = 0
    for table in file.tables():
        validate_values(table, where=str(file.path), first_row=num_rows)
        num_rows += len(table)
        yield table


def _profile(metadata: WorkloadMetadata, tables: Iterable[pa.Table], tokenizer: TokenCounter | None) -> WorkloadProfile:
    counts, meter = _Counts(), PrefixMeter(metadata.prefix, tokenizer)
    for table in tables:
        counts.feed(table)
        meter.feed(table)
    arrivals, notes = _arrivals(counts.numbers("arrival_s"), counts.num_requests, metadata.time_resolution_s)
    prefix = meter.result()
    if prefix is not None and prefix.num_requests < counts.num_requests:
        notes.append(f"prefix sharing is of the first {prefix.num_requests:,} requests")
    tenants = counts.words["tenant"]
    return WorkloadProfile(
        name=metadata.name,
        num_requests=counts.num_requests,
        content=metadata.content,
        capabilities=metadata.capabilities or (),
        arrivals=arrivals,
        input_tokens=quantiles(counts.numbers("input_tokens")),
        output_tokens=quantiles(counts.numbers("output_tokens")),
        longest=counts.longest or None,
        sessions=_sessions(counts),
        prefix=prefix,
        slo_classes=dict(counts.words["slo_class"].most_common()),
        tenants=dict(tenants.most_common(_NUM_TENANTS_TOLD)),
        num_tenants=len(tenants),
        models=dict(counts.words["model"].most_common()),
        adapters=dict(counts.words["adapter"].most_common()),
        statuses=dict(counts.words["status"].most_common()),
        drawing=counts.drawing(),
        checks=dict(counts.checks.most_common()),
        num_responses=counts.num_responses,
        notes=(*notes, *metadata.losses, *metadata.synthetic_parts),
    )


class _Counts:
    """What is kept of each table: a few numbers a request, counters of words."""

    def __init__(self) -> None:
        self.num_requests = 0
        self.num_responses = 0
        self.longest = 0
        self.words: dict[str, Counter[str]] = {name: Counter() for name in _WORDS}
        self.checks: Counter[str] = Counter()
        self._numbers: dict[str, list[Floats]] = {name: [] for name in _NUMBERS}
        self._sessions: list[npt.NDArray[np.int64]] = []
        self._drawing: Counter[str] = Counter()

    def feed(self, table: pa.Table) -> None:
        self.num_requests += len(table)
        self.num_responses += len(table) - table.column("response").null_count
        for name, parts in self._numbers.items():
            parts.append(np.asarray(table.column(name).drop_null().to_numpy(), np.float64))
        for name, counter in self.words.items():
            for pair in table.column(name).cast(pa.string()).drop_null().value_counts():
                counter[pair["values"].as_py()] += pair["counts"].as_py()
        total = pc.max(pc.add(table.column("input_tokens"), table.column("output_tokens"))).as_py()
        self.longest = max(self.longest, total or 0)
        self._sessions.append(session_keys(table.column("session_id").drop_null()))
        self._count_drawing(table)
        self._count_checks(table.column("checks"))

    def _count_drawing(self, table: pa.Table) -> None:
        temperature = table.column("temperature")
        greedy = pc.sum(pc.equal(temperature, 0.0)).as_py() or 0
        self._drawing["greedy"] += greedy
        self._drawing["unset"] += temperature.null_count
        self._drawing["drawn"] += len(table) - temperature.null_count - greedy
        self._drawing["with_stop"] += len(table) - table.column("stop").null_count
        self._drawing["with_max_tokens"] += len(table) - table.column("max_tokens").null_count

    def _count_checks(self, column: pa.ChunkedArray) -> None:
        if column.null_count < len(column):
            for checks in column.to_pylist():
                self.checks.update({check["kind"] for check in checks or ()})

    def numbers(self, name: str) -> Floats:
        return np.concatenate(self._numbers[name]) if self._numbers[name] else np.empty(0)

    def turns(self) -> npt.NDArray[np.int64]:
        """Requests of each session."""
        keys = np.concatenate(self._sessions) if self._sessions else np.empty(0, np.int64)
        return np.asarray(np.unique(keys, return_counts=True)[1], np.int64)

    def drawing(self) -> Drawing:
        names = ("greedy", "drawn", "unset", "with_stop", "with_max_tokens")
        return Drawing(**{name: self._drawing[name] for name in names})


def quantiles(values: npt.ArrayLike) -> Quantiles | None:
    """The distribution of the values, None when there are none."""
    numbers = np.asarray(values, np.float64)
    if not len(numbers):
        return None
    p50, p90, p95, p99 = np.percentile(numbers, [50, 90, 95, 99], method="inverted_cdf").tolist()
    return Quantiles(mean=float(numbers.mean()), p50=p50, p90=p90, p95=p95, p99=p99, max=float(numbers.max()))


def _sessions(counts: _Counts) -> Sessions | None:
    turns = counts.turns()
    distribution = quantiles(turns)
    if distribution is None:
        return None
    think = quantiles(counts.numbers("think_s"))
    return Sessions(num_sessions=len(turns), num_requests=int(turns.sum()), turns=distribution, think_s=think)


def _arrivals(arrivals: Floats, num_requests: int, resolution_s: float | None) -> tuple[Arrivals | None, list[str]]:
    if len(arrivals) < 2 or arrivals.max() == arrivals.min():
        return None, []
    notes = []
    if len(arrivals) < num_requests:
        notes.append(f"{num_requests - len(arrivals):,} requests have no arrival")
    times = np.sort(arrivals - arrivals.min())
    duration = float(times[-1])
    rate = len(times) / duration
    if resolution_s is not None and resolution_s * rate > 1:
        notes.append(f"stamps are in steps of {resolution_s:g} s: spread evenly inside a step to measure burstiness")
        times = spread(times, resolution_s)
    per_second = np.bincount(times.astype(np.int64))
    measured = Arrivals(
        duration_s=duration,
        rate_rps=rate,
        interarrival_cv=interarrival_cv(times),
        dispersion=dispersion(times),
        peak_rps=float(per_second.max()),
    )
    return measured, notes


def spread(times: Floats, resolution_s: float) -> Floats:
    """Each stamp moved by a random part of the step it stands for, sorted."""
    return np.sort(times + np.random.default_rng(0).uniform(0, resolution_s, len(times)))


def interarrival_cv(times: Floats) -> float | None:
    """std / mean of the gaps between sorted arrivals; None for fewer than two gaps."""
    gaps = np.diff(times)
    return float(gaps.std() / gaps.mean()) if len(gaps) > 1 and gaps.mean() > 0 else None


def dispersion(times: Floats) -> dict[str, float]:
    """Window in seconds → variance / mean of the counts in the whole windows from the first arrival on."""
    found = {}
    since = times - times[0]
    for window in DISPERSION_WINDOWS_S:
        num_windows = int(since[-1] // window)
        if num_windows >= _MIN_WINDOWS:
            counts = np.diff(np.searchsorted(since, np.arange(num_windows + 1, dtype=np.float64) * window))
            found[str(window)] = float(counts.var() / counts.mean())
    return found
