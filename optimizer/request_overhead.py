"""What a request takes beside the engine's steps: sockets, parsing and tokenizing before them, its stream after them.

Does not know step times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from engine.simulator.oracle import StepTimeOracle
from engine.simulator.settings import SchedulerSettings
from engine.simulator.simulate import simulate
from optimizer.errors import OptimizerError
from optimizer.simulated_replay import SimulatedReplay
from workloads.records import RequestRecord

_ROUNDS = 3  # the overhead itself moves arrivals, and with them the queue
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


class RequestOverhead(NamedTuple):
    """As `SchedulerSettings` has them."""

    request_overhead_s: float
    delivery_share: float


def fitted_overhead(
    replay: SimulatedReplay,
    settings: SchedulerSettings,
    oracle: StepTimeOracle,
    records: Sequence[RequestRecord],
    *,
    speed: float = 1.0,
) -> RequestOverhead:
    """Of each delivery share that is tried, the median of measured - simulated TTFT; of all, what comes nearest.

    Nearest by the mean absolute difference of TTFT over the requests of a measured replay. Never negative.

    Raises:
        OptimizerError: the records are not of this replay.
    """
    measured = {r.request_id: r.first_token_s - r.intended_start_s for r in records if r.first_token_s is not None}
    rows = [row for row, request in enumerate(replay.requests) if request.request_id in measured]
    if not rows:
        raise OptimizerError("the records are of other requests. Give those of a replay of this workload")
    ttft_s = np.array([measured[replay.requests[row].request_id] for row in rows])
    traffic, tried = replay.traffic.at_speed(speed), []
    for share in _SHARES:
        overhead_s = 0.0
        for _ in range(_ROUNDS):
            tuned = replace(settings, request_overhead_s=overhead_s, delivery_share=share)
            off_s = ttft_s - simulate(traffic, tuned, oracle).ttft_s[rows]
            tried.append((float(np.abs(off_s).mean()), RequestOverhead(overhead_s, share)))
            overhead_s = max(0.0, overhead_s + float(np.median(off_s)))
    return min(tried, key=lambda entry: entry[0])[1]
