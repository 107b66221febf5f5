"""What a request takes beside the engine's steps: sockets, parsing and tokenizing before them, its stream after them.

Does not know step times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from engine.simulator.oracle import StepTimeOracle
from engine.simulator.settings import SchedulerSettings
from engine.simulator.simulate import simulate
from optimizer.errors import OptimizerError
from optimizer.simulated_replay import SimulatedReplay
from workloads.records import RequestRecord

_ROUNDS = 3  # the overhead itself moves arrivals, and with them the queue


def fitted_overhead_s(
    replay: SimulatedReplay,
    settings: SchedulerSettings,
    oracle: StepTimeOracle,
    records: Sequence[RequestRecord],
    *,
    speed: float = 1.0,
) -> float:
    """Seconds: the median of measured - simulated TTFT over the requests of a measured replay; never negative.

    Raises:
        OptimizerError: the records are not of this replay.
    """
    measured = {r.request_id: r.first_token_s - r.intended_start_s for r in records if r.first_token_s is not None}
    rows = [row for row, request in enumerate(replay.requests) if request.request_id in measured]
    if not rows:
        raise OptimizerError("the records are of other requests. Give those of a replay of this workload")
    ttft_s = np.array([measured[replay.requests[row].request_id] for row in rows])
    overhead_s = 0.0
    for _ in range(_ROUNDS):
        outcome = simulate(replay.traffic.at_speed(speed), replace(settings, request_overhead_s=overhead_s), oracle)
        overhead_s = max(0.0, overhead_s + float(np.median(ttft_s - outcome.ttft_s[rows])))
    return overhead_s
