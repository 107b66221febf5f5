"""`Run`: what a config's full replay shows in the simulator.

Does not know limits' origin or decisions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.config import EngineConfig
from engine.simulator.settings import settings_of
from engine.simulator.simulate import simulate
from engine.simulator.traffic import Floats, Traffic
from tests.benchmarks.short_trials.machine import NUM_BLOCKS, Machine
from workloads.records import RequestRecord
from workloads.stopping.limit import PercentileLimit


@dataclass(frozen=True, kw_only=True)
class Run:
    """A config's full replay and what else the decision needs."""

    records: tuple[RequestRecord, ...]  # in order of intended start
    values: dict[str, Floats]
    loss: float
    cost: float  # seconds a request takes at saturation

    def percentile(self, limit: PercentileLimit) -> float:
        return float(np.percentile(self.values[limit.metric], limit.percentile))


def full_run(machine: Machine, config: EngineConfig, traffic: Traffic, cost: float) -> Run:
    settings = settings_of(config, num_blocks=NUM_BLOCKS, acceptance=machine.acceptance(config))
    outcome = simulate(traffic, settings, machine.oracle(config))
    starts, firsts, ends = (column.tolist() for column in (outcome.start_s, outcome.first_token_s, outcome.end_s))
    records = tuple(
        RequestRecord(
            request_id=str(i),
            intended_start_s=starts[i],
            sent_s=starts[i],
            first_token_s=firsts[i],
            token_times_s=(firsts[i], ends[i]),
            end_s=ends[i],
            input_tokens=1,
            output_tokens=2,
            status="ok",
        )
        for i in range(len(traffic))
    )
    values = {"ttft": outcome.ttft_s, "e2el": outcome.e2el_s}
    return Run(records=records, values=values, loss=machine.loss(config), cost=cost)


def seconds_a_request(machine: Machine, config: EngineConfig, traffic: Traffic) -> float:
    """At saturation: the first 400 requests, all there at once."""
    count = min(400, len(traffic))
    at_once = Traffic(
        arrival_s=np.zeros(count),
        input_tokens=traffic.input_tokens[:count],
        output_tokens=traffic.output_tokens[:count],
    )
    settings = settings_of(config, num_blocks=NUM_BLOCKS, acceptance=machine.acceptance(config))
    return float(simulate(at_once, settings, machine.oracle(config)).end_s.max() / count)
