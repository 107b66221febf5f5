"""`fopt sample`'s work: a short workload that is like a long one, made of windows of whole sessions.

Does not know how windows are chosen (`window_choice.py`). Files are read by row groups, twice: numbers first, then the
requests that were chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workloads.capabilities import derive_capabilities
from workloads.characterize import MIN_WINDOWS
from workloads.errors import WorkloadError
from workloads.metadata import WorkloadMetadata
from workloads.parquet import WorkloadFile
from workloads.traffic import TRAFFIC_COLUMNS, Floats, Ints, Traffic, read_traffic
from workloads.traffic_statistics import Difference, differences, relative_error, traffic_statistics
from workloads.window_choice import Window, WindowedTraffic, choose_windows
from workloads.workload import Workload

LONGEST_SCALE_S = 300.0  # of burstiness: a window is no shorter where there is a choice
_MOST_WINDOWS = 8
_MOST_OF_IT = 0.7  # of a recording leaves no choice of windows
_ROWS_A_WINDOW = 500  # where there are no arrivals
_ENOUGH_WINDOWS = 50  # stretches of a burstiness that is told without a warning: by chance within 20%


class SampleSize(NamedTuple):
    """How much is asked for: one of `seconds` and `num_requests`."""

    seconds: float | None = None
    num_requests: int | None = None
    num_windows: int | None = None  # None: as many as hold `LONGEST_SCALE_S` each, at most 8
    scale: float = 1.0  # of the load


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The sample and how far it is from the whole at the scale asked for."""

    workload: Workload
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]


def sample_file(
    file: WorkloadFile, size: SampleSize, *, seed: int = 0, saw: Callable[[int], None] = lambda _: None
) -> Sample:
    """A sample of a workload file; memory is bounded by some numbers a request, a row group and the sample.

    Args:
        saw: told the number of rows each time some were read; every row is read twice.

    Raises:
        WorkloadError: an empty workload, sizes that cannot be, seconds of a workload without arrivals, a damaged file.
    """
    _check(size)
    traffic = read_traffic(file.metadata, _counted(file.tables(TRAFFIC_COLUMNS), saw), file.num_requests)
    if not len(traffic):
        raise WorkloadError(f"{file.path} has no requests", fix="Give a workload with traffic in it")
    windowed = WindowedTraffic(traffic)
    plan = _plan(windowed, size, seed)
    tables = [_chosen(table, first, plan) for first, table in _numbered(_counted(file.tables(), saw))]
    notes = (*plan.notes(traffic, size), *_limits_of(windowed, plan, size.scale))
    workload = Workload(pa.concat_tables(tables).unify_dictionaries(), _metadata(file.metadata, tables, notes))
    found = _differences(windowed, workload, plan, size.scale)
    told = tuple(
        f"{d.what}: {d.whole:.4g} in the recording{_at(size.scale)}, {d.sample:.4g} here ({d.told})" for d in found
    )
    metadata = workload.metadata.model_copy(update={"losses": (*workload.metadata.losses, *told)})
    return Sample(workload=Workload(workload.table, metadata), differences=tuple(found), notes=notes)


def _limits_of(windowed: WindowedTraffic, plan: _Plan, scale: float) -> tuple[str, ...]:
    """Which burstiness a sample so short cannot have, in words."""
    found = []
    for window, index in windowed.whole.dispersion.items():
        num_windows = int(plan.span // int(window))
        if scale != 1.0 or index <= 0 or num_windows > _ENOUGH_WINDOWS:
            continue
        seconds = _ENOUGH_WINDOWS * int(window)
        if num_windows < MIN_WINDOWS:
            found.append(f"burstiness at {window} s: {plan.span:.6g} s are too short for it; {seconds} s would tell it")
        else:
            error = relative_error(num_windows)
            found.append(
                f"burstiness at {window} s rests on {num_windows} stretches: by chance alone it is off by about "
                f"{error:.0%} in a part so long, before windows are chosen for their likeness"
            )
    return tuple(found)


def _at(scale: float) -> str:
    return "" if scale == 1.0 else f" at {scale:g} times its load"


def _check(size: SampleSize) -> None:
    if (size.seconds is None) == (size.num_requests is None):
        raise WorkloadError("a sample has one length", fix="Give --seconds or --requests, one of them")
    given = [value for value in size if value is not None]
    if not all(np.isfinite(given)) or min(given) <= 0:
        raise WorkloadError("sizes and scales of a sample are numbers > 0", fix="Correct the option")


def _counted(tables: Iterator[pa.Table], saw: Callable[[int], None]) -> Iterator[pa.Table]:
    for table in tables:
        yield table
        saw(len(table))


def _numbered(tables: Iterator[pa.Table]) -> Iterator[tuple[int, pa.Table]]:
    first = 0
    for table in tables:
        yield first, table
        first += len(table)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Which rows are taken and how far each moves on the clock; `copies` counts a request's earlier occurrences."""

    windows: tuple[tuple[Window, ...], ...]  # one tuple a layer
    span: float
    rows: Ints  # ascending
    shifts: Floats
    copies: Ints
    num_turned: int  # requests moved from after the end to the start

    def notes(self, traffic: Traffic, size: SampleSize) -> tuple[str, ...]:
        """What was done, in words."""
        unit = "s" if traffic.timed else "requests"
        length = self.windows[0][0].length
        starts = "; ".join(", ".join(f"{w.start:.6g}" for w in layer) for layer in self.windows)
        found = [
            f"sampled: {len(self.rows)} of {len(traffic)} requests, whole sessions that start in windows of "
            f"{length:.6g} {unit} at {starts} {unit}, laid one after another"
        ]
        if len(self.windows) > 1:
            found.append(f"load scaled by {size.scale:g}: {len(self.windows)} layers of other, time-shifted sessions")
        elif size.scale != 1.0:
            found.append(f"load scaled by {size.scale:g}: sessions left out at random")
        if num_again := int((self.copies > 0).sum()):
            found.append(f"{num_again} requests occur in an earlier layer, too: prefix caches will know their prompts")
        if traffic.families:
            found.append(
                "no sessions were recorded: requests that share a prefix of their own are taken for one; "
                f"{self.num_turned} of them, after the end, were moved round to the start, as of sessions begun earlier"
            )
        late = np.isfinite(self.shifts) & (traffic.clock[self.rows] + self.shifts >= self.span)
        if traffic.timed and late.any():
            found.append(f"{int(late.sum())} requests, later turns, arrive after the {self.span:.6g} s of the windows")
        return tuple(found)


def _plan(windowed: WindowedTraffic, size: SampleSize, seed: int) -> _Plan:
    traffic = windowed.traffic
    length = _length(traffic, size)
    num_windows = _num_windows(traffic, length, size.num_windows)
    each = length / num_windows
    if traffic.step_s:
        each = max(1.0, np.ceil(each / traffic.step_s)) * traffic.step_s
    rng = np.random.default_rng(seed)
    num_layers = int(np.ceil(size.scale))
    layers: list[list[Window]] = []
    parts: list[tuple[Ints, Floats]] = []
    for layer in range(num_layers):
        taken = [window for chosen in layers for window in chosen]
        windows = choose_windows(windowed, length=each, num_windows=num_windows, seed=seed + layer, taken=taken)
        layers.append(windows)
        kept = size.scale - layer if layer == num_layers - 1 else 1.0
        parts += [_moved(windowed, w, i * w.length, layer > 0, kept, rng) for i, w in enumerate(windows)]
    return _put_together(traffic, layers, parts, len(layers[0]) * layers[0][0].length)


def _put_together(traffic: Traffic, layers: list[list[Window]], parts: list[tuple[Ints, Floats]], span: float) -> _Plan:
    rows = np.concatenate([rows for rows, _ in parts])
    shifts = np.concatenate([shifts for _, shifts in parts])
    order = np.argsort(rows, kind="stable")
    rows, shifts = rows[order], shifts[order]
    rounds = np.floor((traffic.clock[rows] + shifts) / span) if traffic.families else np.zeros(len(rows))
    return _Plan(
        windows=tuple(map(tuple, layers)),
        span=span,
        rows=rows,
        shifts=shifts - np.nan_to_num(rounds) * span,
        copies=np.arange(len(rows)) - np.searchsorted(rows, rows),
        num_turned=int((rounds > 0).sum()),
    )


def _length(traffic: Traffic, size: SampleSize) -> float:
    """The sample's length on the traffic's clock; never longer than the recording."""
    if size.seconds is not None:
        if not traffic.timed:
            raise WorkloadError(
                "the workload has sessions without arrivals", fix="Give --requests instead of --seconds"
            )
        length = size.seconds
    else:
        assert size.num_requests is not None
        length = size.num_requests / size.scale / len(traffic) * max(traffic.span, 1e-9)
        length = length if traffic.timed else size.num_requests / size.scale
    whole = np.nextafter(traffic.span, np.inf) if traffic.timed else float(len(traffic))
    return min(length, float(whole))


def _num_windows(traffic: Traffic, length: float, asked: int | None) -> int:
    """As asked, else as many of the least sensible length; one where there is no room for a choice."""
    if length > _MOST_OF_IT * traffic.span:
        return 1
    least = LONGEST_SCALE_S if traffic.timed else float(_ROWS_A_WINDOW)
    return asked if asked is not None else int(min(_MOST_WINDOWS, max(1, length // least)))


def _moved(
    windowed: WindowedTraffic, window: Window, place: float, turned: bool, kept: float, rng: np.random.Generator
) -> tuple[Ints, Floats]:
    """A window's rows and their moves to `place`.

    Args:
        turned: sessions move around the window by one random time, as in a ring, so that layers are independent.
        kept: share of the sessions kept, each by its own draw.
    """
    traffic = windowed.traffic
    rows = windowed.rows(window)
    if kept < 1.0:
        sessions, own = np.unique(traffic.sessions[rows], return_inverse=True)
        rows = rows[(rng.random(len(sessions)) < kept)[own]]
    starts = traffic.session_starts[traffic.sessions[rows]] - window.start
    turn = rng.uniform(0, window.length) if turned and traffic.timed else 0.0
    turn = np.floor(turn / traffic.step_s) * traffic.step_s if traffic.step_s else turn
    ring = (starts + turn) % window.length if turn else starts
    return rows, place - window.start + (ring - starts)


def _chosen(table: pa.Table, first: int, plan: _Plan) -> pa.Table:
    """The chosen rows of a table that begins at row `first`, moved, repeated ones renamed."""
    low, high = np.searchsorted(plan.rows, (first, first + len(table)))
    part = table.take(pa.array(plan.rows[low:high] - first))
    part = _replaced(part, "arrival_s", pc.add(part.column("arrival_s"), pa.array(plan.shifts[low:high])))
    copies = plan.copies[low:high]
    if copies.any():
        marks = pa.array([f"~{copy + 1}" if copy else "" for copy in copies.tolist()], pa.string())
        for name in ("request_id", "session_id"):
            part = _replaced(part, name, pc.binary_join_element_wise(part.column(name), marks, ""))
        part = _replaced(part, "parent_ids", _renamed_parents(part.column("parent_ids"), marks))
    return part


def _renamed_parents(column: pa.ChunkedArray, marks: pa.Array) -> pa.Array:
    lists = [
        None if parents is None else [f"{parent}{mark}" for parent in parents]
        for parents, mark in zip(column.to_pylist(), marks.to_pylist(), strict=True)
    ]
    return pa.array(lists, pa.list_(pa.string()))


def _replaced(table: pa.Table, name: str, values: pa.ChunkedArray | pa.Array) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), values)


def _metadata(metadata: WorkloadMetadata, tables: Sequence[pa.Table], notes: tuple[str, ...]) -> WorkloadMetadata:
    supported = derive_capabilities(pa.concat_tables(tables))
    return metadata.model_copy(
        update={
            "capabilities": tuple(c for c in metadata.capabilities or () if c in supported),
            "losses": (*metadata.losses, notes[0]),
            "synthetic_parts": (*metadata.synthetic_parts, *notes[1:]),
            "start_time": None,
        }
    )


def _differences(windowed: WindowedTraffic, workload: Workload, plan: _Plan, scale: float) -> list[Difference]:
    sample = read_traffic(workload.metadata, [workload.table], len(workload))
    known = sample.clock[np.isfinite(sample.clock)]
    found = traffic_statistics(
        known[known < plan.span] if sample.timed else None,
        plan.span,
        sample.input_tokens,
        sample.output_tokens,
        step_s=sample.step_s,
        prefix_hit_ratio=None if sample.prefix is None else sample.prefix.ideal_hit_ratio,
    )
    whole = windowed.whole
    return differences(whole if scale == 1.0 else whole.scaled(scale), found)
