"""`Fidelity`: how much traffic, and how many quality requests, one candidate is measured on.

Does not measure, and does not know candidates: every trial of a study gets the same window, so that trials are paired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from optimizer.errors import OptimizerError
from workloads.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Seconds and counts of one trial, and of the verification at the end."""

    window_s: float  # recorded seconds replayed per trial
    warmup_requests: int
    quality_requests: int  # first look; an undecided floor is looked at once more with up to `quality_requests_max`
    quality_requests_max: int
    probe_s: float  # saturation probe
    verification_s: float  # recorded seconds of each of the four replays A B B A


def plan_fidelity(budget_s: float | None) -> Fidelity:
    """Shares of the budget, within sensible bounds; None (a budget in trials): what 5 minutes would give."""
    raise NotImplementedError


class TrialWindow(NamedTuple):
    """What a trial replays, what warms the engine up (never in `window`), and what the reader should know."""

    window: Workload
    warmup: Workload
    notes: tuple[str, ...]


def choose_window(workload: Workload, window_s: float, *, num_warmup: int, seed: int = 0) -> TrialWindow:
    """The contiguous window of whole sessions most like the whole workload in rate and lengths, starting at 0 s.

    Raises:
        OptimizerError: a workload without arrivals or without requests.
    """
    raise OptimizerError("not written yet")
