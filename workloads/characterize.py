"""Finds a `WorkloadProfile`, from memory or a file row group by row group.

Does not know replays: the profile is of what was recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workloads.histograms import BinCounter, PairCounter, histogram, second_edges, time_series, token_edges
from workloads.importers.repairs import repair_notes
from workloads.lru import LARGEST_TRACE, lru_curve
from workloads.metadata import WorkloadMetadata
from workloads.parquet import WorkloadFile
from workloads.prefix_sharing import PrefixChains
from workloads.profile import Arrivals, Drawing, Lengths, Sessions, WorkloadProfile, quantiles
from workloads.repetition import RepetitionMeter
from workloads.sessions import session_keys
from workloads.tokenizer import TokenCounter
from workloads.validation import validate_values
from workloads.workload import Workload

Floats = npt.NDArray[np.float64]

DISPERSION_WINDOWS_S: Final = (1, 10, 60, 300)
MIN_WINDOWS: Final = 5
_NUM_TENANTS_TOLD: Final = 10
_NUM_TEMPERATURES_TOLD: Final = 5
_NUMBERS: Final = ("arrival_s", "input_tokens", "output_tokens", "think_s")
_SENT: Final = ("stop", "max_tokens", "top_p", "top_k", "seed", "response_format", "tools")
_WORDS: Final = ("slo_class", "tenant", "model", "adapter", "status")


def characterize(workload: Workload, *, tokenizer: TokenCounter | None = None) -> WorkloadProfile:
    """The profile of a workload in memory.

    Args:
        tokenizer: makes prefix sharing of text exact in tokens.
    """
    return _profile(workload.metadata, [workload.table], len(workload), tokenizer)


def characterize_file(
    file: WorkloadFile | Path | str,
    *,
    tokenizer: TokenCounter | None = None,
    saw: Callable[[int], None] = lambda _: None,
) -> WorkloadProfile:
    """The profile of a workload file, one row group in memory at a time; what rows say of each other is not checked.

    Args:
        saw: told the number of rows each time some were read.

    Raises:
        WorkloadError: missing, truncated or foreign file, or a row with an impossible value.
    """
    opened = file if isinstance(file, WorkloadFile) else WorkloadFile(file)
    return _profile(opened.metadata, _checked(opened, saw), opened.num_requests, tokenizer)


def _checked(file: WorkloadFile, saw: Callable[[int], None]) -> Iterator[pa.Table]:
    num_rows = 0
    for table in file.tables():
        validate_values(table, where=str(file.path), first_row=num_rows)
        num_rows += len(table)
        yield table
        saw(len(table))


def _profile(
    metadata: WorkloadMetadata, tables: Iterable[pa.Table], num_requests: int, tokenizer: TokenCounter | None
) -> WorkloadProfile:
    counts, chains = _Counts(), PrefixChains(metadata.prefix, tokenizer, most=LARGEST_TRACE)
    repetition = RepetitionMeter(num_requests, tokenizer)
    for table in tables:
        counts.feed(table)
        chains.feed(table)
        repetition.feed(table)
    prefix, blocks = chains.result(), chains.kept_blocks()
    del chains  # the largest part of what is held
    if prefix is not None and blocks is not None:
        prefix = replace(prefix, lru=lru_curve(blocks))
    arrivals, notes = _arrivals(counts.numbers("arrival_s"), counts.num_requests, metadata.time_resolution_s)
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
        lengths=counts.lengths(),
        sessions=_sessions(counts),
        prefix=prefix,
        slo_classes=dict(counts.words["slo_class"].most_common()),
        slo_limits={name: slo.told for name, slo in metadata.slo_classes.items()},
        tenants=dict(tenants.most_common(_NUM_TENANTS_TOLD)),
        num_tenants=len(tenants),
        models=dict(counts.words["model"].most_common()),
        adapters=dict(counts.words["adapter"].most_common()),
        statuses=dict(counts.words["status"].most_common()),
        drawing=counts.drawing(),
        checks=dict(counts.checks.most_common()),
        num_responses=counts.num_responses,
        repetition=repetition.result(),
        notes=(*notes, *repair_notes(metadata.repairs), *metadata.losses, *metadata.synthetic_parts),
    )


class _Counts:
    """What is kept of each table: a few numbers a request, counters of words and of lengths."""

    def __init__(self) -> None:
        self.num_requests = 0
        self.num_responses = 0
        self.longest = 0
        self.words: dict[str, Counter[str]] = {name: Counter() for name in _WORDS}
        self.checks: Counter[str] = Counter()
        self._numbers: dict[str, list[npt.NDArray[np.floating]]] = {name: [] for name in _NUMBERS}
        self._sessions: list[npt.NDArray[np.int64]] = []
        self._drawing: Counter[str] = Counter()
        self._temperatures: Counter[str] = Counter()
        self.num_parents = 0
        self._inputs, self._outputs = BinCounter(token_edges(4)), BinCounter(token_edges(4))
        self._pairs = PairCounter(token_edges(4))
        self._log_sums = np.zeros(6)  # of x = log(1 + input), y = log(1 + output): n, Σx, Σy, Σxx, Σyy, Σxy

    def feed(self, table: pa.Table) -> None:
        self.num_requests += len(table)
        self.num_responses += len(table) - table.column("response").null_count
        for name, parts in self._numbers.items():
            kind = np.float32 if name.endswith("_tokens") else np.float64  # whole numbers below 2^24 are exact
            parts.append(np.asarray(table.column(name).drop_null().to_numpy(), kind))
        for name, counter in self.words.items():
            for pair in table.column(name).cast(pa.string()).drop_null().value_counts():
                counter[pair["values"].as_py()] += pair["counts"].as_py()
        total = pc.max(pc.add(table.column("input_tokens"), table.column("output_tokens"))).as_py()
        self.longest = max(self.longest, total or 0)
        self.num_parents += int(pc.sum(pc.greater(pc.list_value_length(table.column("parent_ids")), 0)).as_py() or 0)
        self._sessions.append(session_keys(table.column("session_id").drop_null()))
        self._count_lengths(table)
        self._count_drawing(table)
        self._count_checks(table.column("checks"))

    def _count_drawing(self, table: pa.Table) -> None:
        temperature = table.column("temperature")
        greedy = pc.sum(pc.equal(temperature, 0.0)).as_py() or 0
        self._drawing["greedy"] += greedy
        self._drawing["unset"] += temperature.null_count
        self._drawing["drawn"] += len(table) - temperature.null_count - greedy
        for name in _SENT:
            self._drawing[f"with_{name}"] += len(table) - table.column(name).null_count
        for pair in temperature.drop_null().value_counts():
            self._temperatures[f"{pair['values'].as_py():g}"] += pair["counts"].as_py()

    def _count_lengths(self, table: pa.Table) -> None:
        inputs, outputs = (
            np.asarray(table.column(name).cast(pa.float64()).to_numpy(), np.float64)
            for name in ("input_tokens", "output_tokens")
        )
        self._inputs.feed(inputs)
        self._outputs.feed(outputs)
        self._pairs.feed(inputs, outputs)
        known = ~(np.isnan(inputs) | np.isnan(outputs))
        x, y = np.log1p(inputs[known]), np.log1p(outputs[known])
        self._log_sums += [float(len(x)), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]

    def _count_checks(self, column: pa.ChunkedArray) -> None:
        if column.null_count < len(column):
            for checks in column.to_pylist():
                self.checks.update({check["kind"] for check in checks or ()})

    def numbers(self, name: str) -> Floats:
        parts = self._numbers[name]
        return np.concatenate(parts).astype(np.float64, copy=False) if parts else np.empty(0)

    def turns(self) -> npt.NDArray[np.int64]:
        """Requests of each session."""
        keys = np.concatenate(self._sessions) if self._sessions else np.empty(0, np.int64)
        return np.asarray(np.unique(keys, return_counts=True)[1], np.int64)

    def drawing(self) -> Drawing:
        names = ("greedy", "drawn", "unset", *(f"with_{name}" for name in _SENT))
        return Drawing(
            **{name: self._drawing[name] for name in names},
            temperatures=dict(self._temperatures.most_common(_NUM_TEMPERATURES_TOLD)),
        )

    def lengths(self) -> Lengths:
        return Lengths(
            input_tokens=self._inputs.result(),
            output_tokens=self._outputs.result(),
            joint=self._pairs.result(),
            correlation=correlation(self._log_sums),
        )


def correlation(sums: Floats) -> float | None:
    """Pearson's of x and y from n, Σx, Σy, Σxx, Σyy, Σxy; None for fewer than three or where one is constant."""
    n = max(1.0, float(sums[0]))
    mean_x, mean_y, xx, yy, xy = (sums[1:] / n).tolist()
    var_x, var_y = xx - mean_x**2, yy - mean_y**2
    if sums[0] < 3 or min(var_x, var_y) < 1e-9:
        return None
    return float((xy - mean_x * mean_y) / np.sqrt(var_x * var_y))


def _sessions(counts: _Counts) -> Sessions | None:
    turns = counts.turns()
    distribution = quantiles(turns)
    if distribution is None:
        return None
    think = counts.numbers("think_s")
    return Sessions(
        num_sessions=len(turns),
        num_requests=int(turns.sum()),
        turns=distribution,
        think_s=quantiles(think),
        num_parents=counts.num_parents,
        turns_histogram=histogram(turns, token_edges(4)),
        think_histogram=histogram(think, second_edges()),
    )


def _arrivals(arrivals: Floats, num_requests: int, resolution_s: float | None) -> tuple[Arrivals | None, list[str]]:
    if len(arrivals) < 2 or arrivals.max() == arrivals.min():
        return None, []
    notes = []
    if len(arrivals) < num_requests:
        notes.append(f"{num_requests - len(arrivals):,} requests have no arrival")
    times = np.sort(arrivals - arrivals.min())
    duration = float(times[-1])
    rate = len(times) / duration
    stamped_cv = None
    if resolution_s is not None and resolution_s * rate > 1:
        notes.append(f"stamps are in steps of {resolution_s:g} s: spread evenly inside a step to measure burstiness")
        stamped_cv = interarrival_cv(times)
        times = spread(times, resolution_s)
    per_second = np.bincount(times.astype(np.int64))
    measured = Arrivals(
        duration_s=duration,
        rate_rps=rate,
        interarrival_cv=interarrival_cv(times),
        dispersion=dispersion(times),
        peak_rps=float(per_second.max()),
        stamped_cv=stamped_cv,
        over_time=time_series(times - times[0]),
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
        if num_windows >= MIN_WINDOWS:
            counts = np.diff(np.searchsorted(since, np.arange(num_windows + 1, dtype=np.float64) * window))
            found[str(window)] = float(counts.var() / counts.mean())
    return found
