"""Traffic of a case: arrivals and lengths at a share of a machine's saturation.

Does not know decisions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.simulator.traffic import Traffic
from tests.benchmarks.short_trials.machine import BASE, Machine
from tests.benchmarks.short_trials.run import seconds_a_request


class Case(NamedTuple):
    name: str
    load: float  # of the default config's saturation
    bursty: bool


CASES = (
    Case("steady, 40% load", 0.4, False),
    Case("steady, 70% load", 0.7, False),
    Case("bursty, 50% load", 0.5, True),
)


def make_traffic(case: Case, machine: Machine, num: int, seed: int) -> Traffic:
    rng = np.random.default_rng(seed)
    inputs, outputs = (
        rng.lognormal(5.0, 0.8, num).astype(np.int64) + 1,
        rng.lognormal(3.7, 0.7, num).astype(np.int64) + 1,
    )
    gaps = rng.exponential(1.0, num)
    if case.bursty:  # phases of 0.5 and 1.8 times the mean rate, of 120 and 60 requests in the mean
        phases = np.repeat(
            np.arange(num) % 2, np.where(np.arange(num) % 2, rng.geometric(1 / 60, num), rng.geometric(1 / 120, num))
        )
        gaps /= np.where(phases[:num] == 1, 1.8, 0.5)
    arrivals = np.cumsum(gaps)
    traffic = Traffic(arrival_s=arrivals, input_tokens=inputs, output_tokens=outputs)
    span = num * seconds_a_request(machine, BASE, traffic) / case.load
    return Traffic(arrival_s=arrivals * span / arrivals[-1], input_tokens=inputs, output_tokens=outputs)


def hardest_first(traffic: Traffic) -> Traffic:
    """The same requests, begun where a server of 80% load would last be idle before its longest queue."""
    work = traffic.input_tokens * 0.2 + traffic.output_tokens
    service = 0.8 * work * traffic.arrival_s[-1] / work.sum()
    backlog, longest, begin, idle = 0.0, 0.0, 0, 0
    gaps = np.diff(traffic.arrival_s, prepend=0.0)
    for row in range(len(traffic)):
        backlog = max(0.0, backlog - gaps[row])
        idle = row if backlog == 0.0 else idle
        backlog += service[row]
        if backlog > longest:
            longest, begin = backlog, idle
    order = np.roll(np.arange(len(traffic)), -begin)
    arrivals = np.cumsum(gaps[order]) - gaps[order][0]
    return Traffic(
        arrival_s=arrivals, input_tokens=traffic.input_tokens[order], output_tokens=traffic.output_tokens[order]
    )
