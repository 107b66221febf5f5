"""`Capacity`: the highest request rate one replica holds, measured by a short saturation probe or a bisection.

Does not know prices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.backend import Server
from optimizer.fidelity import TrialWindow
from optimizer.measurement import Report, silent
from optimizer.placement import Placement
from workloads.estimate import Estimate

if TYPE_CHECKING:
    from optimizer.slo import Slo


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """Requests/s and tokens/s (input plus output) of one replica."""

    rate_rps: Estimate
    tokens_per_second: Estimate
    basis: str  # "saturation" or "slo bisection"
    notes: tuple[str, ...] = ()


def probe_capacity(
    server: Server,
    window: TrialWindow,
    *,
    concurrency: int,
    probe_s: float,
    slos: tuple[Slo, ...] = (),
    placement: Placement,
    report: Report = silent,
) -> Capacity:
    """Saturation without latency SLOs; with them the highest replay speed at which they hold, times the window's rate.

    Raises:
        EngineError: the engine died or hung.
    """
    raise NotImplementedError
