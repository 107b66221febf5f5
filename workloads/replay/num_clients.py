"""`num_clients`: how many client processes a replay should be sent from.

Does not know what the cores are otherwise needed for, beyond leaving most of them to others.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from workloads.replay.pacing import Mode
from workloads.workload import Workload

# Of one client process on a core of its own: half of what it did within 5% of a 20 ms TTFT (tests/benchmarks/replayer:
# 1,000 requests/s of 16 streamed tokens each).
REQUESTS_PER_S: Final = 500.0
TOKENS_PER_S: Final = 8_000.0
IN_FLIGHT: Final = 256  # at a fixed concurrency: as many streams of 31 tokens/s give `TOKENS_PER_S`
CORES_PER_CLIENT: Final = 4  # of a machine's cores at most one in so many measures, the others serve
_WINDOW_S: Final = 10.0


def num_clients(
    workload: Workload, *, num_cores: int, mode: Mode = "auto", speedup: float = 1.0, concurrency: int | None = None
) -> int:
    """As many as the recorded rate needs in its busiest 10 s, and at most one for every four cores; at least one.

    Args:
        num_cores: that this process may use.
    """
    if mode == "concurrency":
        needed = (concurrency or 1) / IN_FLIGHT
    else:
        requests_per_s, tokens_per_s = busiest_rates(workload, speedup=speedup)
        needed = max(requests_per_s / REQUESTS_PER_S, tokens_per_s / TOKENS_PER_S)
    return max(1, min(math.ceil(needed), num_cores // CORES_PER_CLIENT))


def busiest_rates(workload: Workload, *, speedup: float = 1.0) -> tuple[float, float]:
    """Requests and output tokens a second as replayed, each in the busiest 10 s; of a shorter workload over all of it.

    Requests without a recorded arrival, which follow others, are not counted.
    """
    arrivals = workload.table.column("arrival_s").to_numpy().astype(np.float64) / speedup
    tokens = workload.table.column("output_tokens").fill_null(0).to_numpy().astype(np.float64)
    timed = ~np.isnan(arrivals)
    if not timed.any():
        return 0.0, 0.0
    arrivals, tokens = arrivals[timed] - arrivals[timed].min(), tokens[timed]
    windows = (arrivals / _WINDOW_S).astype(np.int64)
    length_s = min(_WINDOW_S, max(1.0, float(arrivals.max())))
    return float(np.bincount(windows).max()) / length_s, float(np.bincount(windows, weights=tokens).max()) / length_s
