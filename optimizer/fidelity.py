"""`Fidelity`: how much traffic one candidate is measured on; `TrialWindow`: which traffic that is.

Does not measure, and does not know candidates: every trial of a study gets the same window, so that trials are paired.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from optimizer.errors import OptimizerError
from workloads.errors import WorkloadError
from workloads.record_arrays import Floats
from workloads.request import Request
from workloads.sampling import session_numbers, session_starts, window_at
from workloads.workload import Workload

DEFAULT_BUDGET_S = 300.0
NUM_PLACES = 64  # windows that are compared with the whole workload
MAX_PROBE_REQUESTS = 600
TAIL_SHARE = 0.25  # later turns may arrive this much after the window; still later ones are left out
FEW_REQUESTS = 30
FEWEST_QUALITY_REQUESTS = 60
QUALITY_SHARE = 0.16


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Seconds and counts of one trial, and of the verification at the end."""

    window_s: float  # recorded seconds replayed per trial
    warmup_requests: int
    quality_requests: int  # first look; an undecided floor is looked at once more with up to `quality_requests_max`
    quality_requests_max: int
    probe_s: float  # saturation probe
    verification_s: float  # recorded seconds of each of the four replays A B B A


def plan_fidelity(budget_s: float | None, *, requests_per_s: float | None = None) -> Fidelity:
    """Shares of the budget, within sensible bounds; None (a budget in trials): what 5 minutes would give.

    The shares leave room for eight trials of half of which the quality class is new, and the verification. Of 300 s:
    8 x (12 replay + 4 probe + 1 warm-up) + 4 x 9 quality + 4 x 20 + 20 verification = 272.

    Args:
        requests_per_s: of the recording. Quality asks no more requests than it has in `QUALITY_SHARE` of the budget, as
            long prompts come slowly and would take the whole budget.
    """
    budget = DEFAULT_BUDGET_S if budget_s is None else budget_s
    num_requests = round(_bounded(budget, FEWEST_QUALITY_REQUESTS, 1000))
    if requests_per_s is not None:
        at_most = round(QUALITY_SHARE * budget * requests_per_s)
        num_requests = max(FEWEST_QUALITY_REQUESTS, min(num_requests, at_most))
    return Fidelity(
        window_s=_bounded(0.037 * budget, 3, 120),
        warmup_requests=8,
        quality_requests=num_requests,
        quality_requests_max=2 * num_requests,
        probe_s=_bounded(budget / 75, 1, 15),
        verification_s=_bounded(0.045 * budget, 3, 120),
    )


def _bounded(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


@dataclass(frozen=True, kw_only=True)
class TrialWindow:
    """What is replayed, what warms the engine up, what saturates it, and what the reader should know."""

    window: Workload
    warmup: Workload  # not of the window, where there are others
    probe: Workload  # distinct requests for a closed loop, so that none is answered from the prefix cache
    notes: tuple[str, ...] = ()

    @property
    def span_s(self) -> float:
        """Last recorded arrival; the first is at 0."""
        return float(np.nanmax(self.window.numbers("arrival_s")))

    @property
    def tokens_per_second(self) -> float:
        """Recorded input plus output tokens over the span."""
        tokens = self.window.numbers("input_tokens") + self.window.numbers("output_tokens")
        return float(np.nansum(tokens)) / max(self.span_s, 1e-9)


def choose_window(workload: Workload, window_s: float, *, num_warmup: int, seed: int = 0) -> TrialWindow:
    """The contiguous window of sessions most like the whole workload in rate, burstiness and lengths.

    Raises:
        OptimizerError: a workload without arrivals or without requests.
    """
    if not len(workload):
        raise OptimizerError(f"workload {workload.metadata.name!r} has no requests. Give one with traffic in it")
    try:
        workload.require("open_loop")
        start = _most_typical_start(workload, window_s, np.random.default_rng(seed))
        whole_sessions = window_at(workload, start_s=start, seconds=window_s)
    except WorkloadError as error:
        raise OptimizerError(str(error)) from None
    limit = (1 + TAIL_SHARE) * window_s
    kept = (request for request in whole_sessions if (request.arrival_s or 0.0) <= limit)
    window = part_of(workload, kept)
    warmup, warmup_notes = _warmup(workload, window, num_warmup)
    return TrialWindow(
        window=window,
        warmup=warmup,
        probe=part_of(workload, workload[:MAX_PROBE_REQUESTS]),
        notes=(*_window_notes(workload, window, start), *warmup_notes),
    )


def _most_typical_start(workload: Workload, window_s: float, rng: np.random.Generator) -> float:
    """Of `NUM_PLACES` places at random, the one whose window is most like the whole; 0 when there is only one."""
    starts = session_starts(workload)
    latest = float(starts.max()) - window_s
    if latest <= 0:
        return 0.0
    places = rng.uniform(0, latest, NUM_PLACES)
    begun = starts[session_numbers(workload)]
    columns = (workload.numbers("arrival_s"), workload.numbers("input_tokens"), workload.numbers("output_tokens"))
    features = np.array([_features(*columns, (begun >= t) & (begun < t + window_s), window_s) for t in places])
    whole = _features(*columns, np.ones(len(begun), bool), float(starts.max()))
    distances = np.abs(np.log((features + 1e-6) / (np.array(whole) + 1e-6))).sum(axis=1)
    return float(places[np.argmin(distances)])


def _features(
    arrivals: Floats, inputs: Floats, outputs: Floats, rows: np.ndarray[tuple[int], np.dtype[np.bool_]], seconds: float
) -> tuple[float, float, float, float]:
    """Requests, input tokens and output tokens per second, and the deviation of requests from second to second."""
    per_second = np.bincount(np.nan_to_num(arrivals[rows]).astype(np.int64))
    per_second = np.trim_zeros(per_second, "f")
    spread = float(per_second.std()) if len(per_second) else 0.0
    totals = (float(rows.sum()), float(np.nansum(inputs[rows])), float(np.nansum(outputs[rows])))
    return (totals[0] / seconds, totals[1] / seconds, totals[2] / seconds, spread)


def _warmup(workload: Workload, window: Workload, num_requests: int) -> tuple[Workload, list[str]]:
    """Requests from outside the window, one a session as far as possible, with nothing to wait for."""
    inside = set(window.table.column("request_id").to_pylist())
    outside = [request for request in workload if request.request_id not in inside]
    notes = [] if outside or not num_requests else ["the window is the whole workload: it also warms the engine up"]
    chosen = (outside or list(window))[:num_requests]
    return part_of(workload, (replace(request, parent_ids=(), think_s=None) for request in chosen)), notes


def _window_notes(workload: Workload, window: Workload, start: float) -> list[str]:
    place = f"{len(window)} of {len(workload)} requests are replayed per trial, from {start:.1f} s of the recording"
    few = f"{len(window)} requests are few for a tail latency: give a larger --budget"
    return [place, few] if len(window) < FEW_REQUESTS else [place]


def part_of(workload: Workload, requests: Iterable[Request]) -> Workload:
    """A workload of these requests, without those whose parents are not among them; arrivals from 0."""
    kept: dict[str, Request] = {}
    for request in sorted(requests, key=lambda r: np.inf if r.arrival_s is None else r.arrival_s):
        if all(parent in kept for parent in request.parent_ids):
            kept[request.request_id] = request
    first = min((r.arrival_s for r in kept.values() if r.arrival_s is not None), default=0.0)
    moved = [r if r.arrival_s is None else replace(r, arrival_s=r.arrival_s - first) for r in kept.values()]
    able = workload.capabilities
    part = Workload.from_requests(moved, workload.metadata.model_copy(update={"capabilities": None}))
    capabilities = tuple(capability for capability in part.capabilities if capability in able)
    return Workload(part.table, part.metadata.model_copy(update={"capabilities": capabilities}))
