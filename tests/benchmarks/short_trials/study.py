"""One machine's configs in random order, each decided on both ways.

Does not count agreement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from optimizer.candidate import space_around
from optimizer.recommendation import TIE
from optimizer.suggest.pool import CandidatePool
from search_spaces.space import load_search_space
from tests.benchmarks.short_trials.decision import RIVAL, decide_early, decide_fully
from tests.benchmarks.short_trials.machine import BASE, Machine
from tests.benchmarks.short_trials.run import Run, full_run, seconds_a_request
from tests.benchmarks.short_trials.traffic import Case, hardest_first, make_traffic
from workloads.stopping.clustering import clustering_of
from workloads.stopping.limit import LimitedMetric, PercentileLimit


class Verdict(NamedTuple):
    case: str
    full: tuple[str, ...]
    early: str | None
    num_sent: int
    num_requests: int


def study(case: Case, seed: int, num_configs: int, num_requests: int, *, rotate: bool) -> list[Verdict]:
    """One machine's configs in random order, the default first and always in full."""
    machine, rng = Machine(seed), np.random.default_rng(seed)
    space = space_around(load_search_space("bundled").resolve({"draft": "d", "cores": 2}).space, BASE)
    pool = CandidatePool(space, BASE, seed=seed)
    configs = [BASE, *(pool.configs[i] for i in rng.choice(np.arange(1, len(pool)), num_configs, replace=False))]
    traffic = make_traffic(case, machine, num_requests, seed)
    replayed = hardest_first(traffic) if rotate else traffic
    costs = [seconds_a_request(machine, config, traffic) for config in configs]
    recorded = [full_run(machine, c, traffic, cost) for c, cost in zip(configs, costs, strict=True)]
    shown = recorded
    if rotate:
        shown = [full_run(machine, c, replayed, cost) for c, cost in zip(configs, costs, strict=True)]
    limits = _limits(recorded)
    name, found, front = case.name + (", hardest first" if rotate else ""), [], [0]
    for number in range(1, len(configs)):
        run = recorded[number]
        able = [i for i in front if recorded[i].loss <= run.loss and recorded[i].cost <= run.cost]
        able = [i for i in able if decide_fully(recorded[i], limits, None) == ("kept",)]
        best = min(able, key=lambda i: recorded[i].percentile(_limit("e2el", 95, 1.0)), default=None)
        full = decide_fully(run, limits, None if best is None else _behind(recorded[best]))
        rival = None if best is None else _behind(shown[best])
        known = _known(limits, rival, [shown[0]] if best is None else [shown[0], shown[best]])
        early, num_sent = decide_early(shown[number], limits, rival, known)
        found.append(Verdict(name, full, early, num_sent, num_requests))
        if full == ("kept",):
            front.append(number)
    return found


def _limit(metric: LimitedMetric, percentile: float, limit_s: float) -> PercentileLimit:
    return PercentileLimit(metric=metric, percentile=percentile, limit_s=limit_s)


def _limits(runs: Sequence[Run]) -> dict[str, PercentileLimit]:
    """SLOs that 7 of 10 configs meet, each."""
    found = {}
    for metric, percentile in (("ttft", 95.0), ("e2el", 99.0)):
        values = [float(np.percentile(run.values[metric], percentile)) for run in runs]
        found[f"{metric}:p{percentile:g}"] = _limit(metric, percentile, float(np.quantile(values, 0.7)))  # type: ignore[arg-type]
    return found


def _behind(run: Run) -> PercentileLimit:
    limit = _limit("e2el", 95, 1.0)
    return _limit("e2el", 95, run.percentile(limit) * (1 + TIE))


def _known(
    limits: dict[str, PercentileLimit], rival: PercentileLimit | None, references: Sequence[Run]
) -> dict[str, float | None]:
    wanted = limits | ({RIVAL: rival} if rival is not None else {})
    return {
        name: max(clustering_of(run.values[limit.metric], limit.share) for run in references)
        for name, limit in wanted.items()
    }
