"""ServeGen's client models as a seeded generator: clients with recorded rates, gaps and lengths make new traffic.

Does not know text, prefixes or which input length goes with which output length: the models have marginals alone.
"""

from __future__ import annotations

import ast
import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workloads.errors import WorkloadError, line_place
from workloads.importers.importer import license_beside, source_of
from workloads.metadata import WorkloadMetadata
from workloads.request import json_text
from workloads.workload import Workload

Floats = npt.NDArray[np.float64]

_CITATION = "Xiang et al., ServeGen: Workload Characterization and Generation of LLM Serving in Production, 2025"
_LENGTHS = ("input_tokens", "output_tokens")
_MOST_REQUESTS = 5_000_000  # bounds memory


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A stretch of time in which a client's requests come at one rate, their gaps of one family."""

    start_s: float
    rate_rps: float
    family: str  # Gamma, Weibull, or empty: exponential
    shape: float


@dataclass(frozen=True, kw_only=True)
class Pmf:
    """Values and how likely each is."""

    values: Floats
    shares: Floats

    def draw(self, num: int, rng: np.random.Generator) -> Floats:
        return rng.choice(self.values, num, p=self.shares)


@dataclass(frozen=True, kw_only=True)
class Client:
    """One client: its rates, and from each start in seconds on its lengths; only the starts at which it has any."""

    name: str
    intervals: tuple[Interval, ...]
    lengths: Mapping[float, Mapping[str, Pmf]]

    def lengths_at(self, start_s: float) -> Mapping[str, Pmf]:
        """The latest lengths that began by then, else the first."""
        begun = [start for start in self.lengths if start <= start_s]
        return self.lengths[max(begun) if begun else min(self.lengths)]


def generate_servegen(
    folder: Path, *, seconds: float, start_s: float = 0.0, rate_rps: float | None = None, seed: int = 0
) -> Workload:
    """New traffic of the clients in [start_s, start_s + seconds) of their recorded day.

    An interval gets as many requests as were recorded (in expectation where rates are scaled); the gaps between them
    are drawn from its family and fill it.

    Args:
        rate_rps: multiply every client's rate so that the mean is this; None: as recorded.

    Raises:
        WorkloadError: no client models there, a malformed one, or no request in that time.
    """
    if not all(math.isfinite(x) for x in (seconds, start_s, rate_rps or 1.0)) or seconds <= 0 or (rate_rps or 1.0) <= 0:
        raise WorkloadError("lengths of time and rates are numbers > 0", fix="Correct the option")
    paths, clients = _clients(folder)
    recorded = sum(_overlap(i, step, start_s, seconds) * i.rate_rps for c in clients for i, step in _steps(c))
    factor = rate_rps * seconds / recorded if rate_rps and recorded else 1.0
    if not 0 < recorded * factor <= _MOST_REQUESTS:
        what = f"{recorded * factor:.0f} requests in {seconds:g} s from {start_s:g} s"
        raise WorkloadError(what, fix=f"Choose a time with 1 to {_MOST_REQUESTS} requests")
    rng = np.random.default_rng(seed)
    tables = [_traffic(client, start_s, seconds, factor, rng) for client in clients]
    parts = ["arrivals, lengths and reasoning shares were drawn from ServeGen's client models, each on its own"]
    parts += [f"every client's rate was multiplied by {factor:.4g}"] if rate_rps else []
    metadata = WorkloadMetadata(
        name=folder.name,
        source=source_of(paths, "servegen", license=license_beside(folder, folder.parent), citation=_CITATION),
        synthetic_parts=tuple(parts),
    )
    return Workload(pa.concat_tables(tables), metadata)


def _clients(folder: Path) -> tuple[list[Path], list[Client]]:
    paths, clients = [], []
    for trace in sorted(folder.glob("*-trace.csv")):
        lengths = trace.with_name(trace.name.replace("-trace.csv", "-dataset.json"))
        if not lengths.is_file():
            raise WorkloadError(f"no {lengths.name} beside {trace}", fix="Give a whole folder of client models")
        paths += [trace, lengths]
        found = Client(
            name=trace.name.removesuffix("-trace.csv"), intervals=_intervals(trace), lengths=_lengths(lengths)
        )
        clients += [found] if found.lengths else []
    if not clients:
        fix = "Give a folder with chunk-N-trace.csv and chunk-N-dataset.json files"
        raise WorkloadError(f"no client models in {folder}", fix=fix)
    return paths, clients


def _intervals(path: Path) -> tuple[Interval, ...]:
    """Rows `start,rate,cv,family,shape,scale`; the scale follows from rate and shape."""
    found: list[Interval] = []
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            try:
                start, rate, _, family, shape, _ = row
                interval = Interval(start_s=float(start), rate_rps=float(rate), family=family, shape=float(shape))
            except ValueError:
                fix = "Rows are start,rate,cv,family,shape,scale"
                raise WorkloadError("not a row of a client's rates", place=line_place(path, number), fix=fix) from None
            known = family in ("Gamma", "Weibull", "") and interval.rate_rps >= 0 and math.isfinite(interval.rate_rps)
            shaped = not interval.rate_rps or not family or 0 < interval.shape < math.inf
            ordered = not found or interval.start_s > found[-1].start_s
            if not (known and shaped and ordered):
                fix = "Starts grow, rates are >= 0, families are Gamma or Weibull of shapes > 0"
                raise WorkloadError("a client's rates cannot be", place=line_place(path, number), fix=fix)
            found.append(interval)
    return tuple(found)


def _lengths(path: Path) -> dict[float, dict[str, Pmf]]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        texts = {float(start): dict(pmfs) for start, pmfs in values.items()}
        found = {
            s: {n: _pmf(ast.literal_eval(text)) for n, text in p.items() if text != "{}"} for s, p in texts.items()
        }
    except (ValueError, SyntaxError, AttributeError, TypeError, ArithmeticError):
        fix = "Give ServeGen's dataset files: distributions of lengths by start time"
        raise WorkloadError(f"{path} is not a client's lengths", fix=fix) from None
    return {start: pmfs for start, pmfs in found.items() if all(name in pmfs for name in _LENGTHS)}


def _pmf(shares: Mapping[float, float]) -> Pmf:
    weights = np.array(list(shares.values()), np.float64)
    if not (np.isfinite(weights) & (weights >= 0)).all() or weights.sum() <= 0:
        raise ValueError(shares)
    return Pmf(values=np.array(list(shares), np.float64), shares=weights / weights.sum())


def _steps(client: Client) -> list[tuple[Interval, float]]:
    """Each interval and its length; the last is as long as the one before."""
    starts = [interval.start_s for interval in client.intervals]
    lengths = np.diff(starts).tolist()
    return list(zip(client.intervals, [*lengths, *(lengths[-1:] or [600.0])], strict=True)) if starts else []


def _overlap(interval: Interval, length: float, start_s: float, seconds: float) -> float:
    return max(0.0, min(interval.start_s + length, start_s + seconds) - max(interval.start_s, start_s))


def _traffic(client: Client, start_s: float, seconds: float, factor: float, rng: np.random.Generator) -> pa.Table:
    """The client's requests as a table."""
    columns: dict[str, list[npt.NDArray[np.generic]]] = {name: [] for name in ("arrival_s", *_LENGTHS, "reasoning")}
    for interval, length in _steps(client):
        if not interval.rate_rps or not _overlap(interval, length, start_s, seconds):
            continue
        times = interval.start_s - start_s + _arrivals(interval, length, factor, rng)
        times = times[(times >= 0) & (times < seconds)]
        pmfs = client.lengths_at(interval.start_s)
        inputs, outputs = (pmfs[name].draw(len(times), rng).astype(np.int32) for name in _LENGTHS)
        ratios = pmfs["reason_ratio"].draw(len(times), rng) if "reason_ratio" in pmfs else np.zeros(len(times))
        reasoning = np.round(ratios * outputs).astype(np.int32)
        drawn: list[npt.NDArray[np.generic]] = [times, np.maximum(inputs, 1), np.maximum(outputs, 0), reasoning]
        for column, values in zip(columns.values(), drawn, strict=True):
            column.append(values)
    joined = {name: np.concatenate(parts) if parts else np.empty(0, np.int32) for name, parts in columns.items()}
    return _table(client.name, joined)


def _table(client: str, columns: dict[str, npt.NDArray[np.generic]]) -> pa.Table:
    num = len(columns["arrival_s"])
    extra = [json_text({"reasoning_tokens": count}) for count in columns["reasoning"].tolist()]
    return pa.table(
        {
            "request_id": pa.array([f"{client}.{i}" for i in range(num)], pa.string()),
            "arrival_s": pa.array(columns["arrival_s"]).cast(pa.float64()),
            "tenant": pa.array([client] * num, pa.string()),
            "input_tokens": pa.array(columns["input_tokens"], pa.int32()),
            "output_tokens": pa.array(columns["output_tokens"], pa.int32()),
            "extra": pa.array(extra, pa.large_string()),
        }
    )


def _arrivals(interval: Interval, length: float, factor: float, rng: np.random.Generator) -> Floats:
    """Times in [0, length): gaps of the family, stretched to fill the interval, from a random place on."""
    expected = interval.rate_rps * factor * length
    num = int(expected) + int(rng.random() < expected - int(expected))
    if interval.family == "Gamma":
        gaps = rng.gamma(interval.shape, size=num)
    elif interval.family == "Weibull":
        gaps = rng.weibull(interval.shape, size=num)
    else:
        gaps = rng.exponential(size=num)
    total = float(gaps.sum())
    gaps = gaps / total if total > 0 else np.full(num, 1 / max(1, num))
    return np.sort((np.cumsum(gaps) + rng.random()) % 1.0) * length
