"""`measure`: replay a window of traffic against one running server and say what happened, with intervals.

Does not launch, does not know objectives, and never retries a failed engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.backend import EngineStatistics, Server
from optimizer.fidelity import TrialWindow
from optimizer.placement import Placement
from workloads.estimate import Estimate

if TYPE_CHECKING:
    from optimizer.slo import Slo
    from workloads.metrics import ServingMetrics
    from workloads.records import RequestRecord

Report = Callable[[str], None]  # a phase in words, e.g. "replaying 43/120"


def silent(phase: str) -> None:
    """A `Report` that says nothing."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One replay; `void_reason` is empty unless the client was too late for its latencies to mean anything."""

    records: tuple[RequestRecord, ...]
    metrics: ServingMetrics
    flat: dict[str, float]  # `metrics.flat()` plus acceptance_length and prefix_cache_hit_rate where they exist
    estimates: dict[str, Estimate]  # same names as `flat`, with intervals
    statistics: EngineStatistics  # differences over the replay
    notes: tuple[str, ...] = ()
    void_reason: str = ""


def measure(
    server: Server,
    window: TrialWindow,
    *,
    slos: tuple[Slo, ...] = (),
    placement: Placement,
    hang_s: float = 30.0,
    report: Report = silent,
) -> Measurement:
    """Reset the prefix cache, warm up, replay at the recorded arrivals with pinned lengths; retried once when void.

    Raises:
        EngineError: DIED when the engine ended, HANG when no token came for `hang_s`.
    """
    raise NotImplementedError
