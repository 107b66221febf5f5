"""How many measured trials each strategy needs: a table of made-up machines over the bundled space.

Reference: the front of every candidate's true values that meets quality >= 0.99, inside (loss 0.01, latency and cost
1.5x the default's; --reach 1.1 is stricter: little but the improvements counts). A strategy sees noisy measurements;
what it found is judged by the true values.

    python tests/benchmarks/search_efficiency.py --seeds 20 --trials 40
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from synthetic_table import SyntheticMachine

from engine.config import EngineConfig
from optimizer.candidate import space_around
from optimizer.objective import parse_objective
from optimizer.pareto import Floats, hypervolume
from optimizer.slo import with_quality_floor
from optimizer.suggest import SUGGESTERS
from optimizer.suggest.pool import CandidatePool, assignment_key
from optimizer.suggest.suggester import Observation, Problem
from search_spaces.space import load_search_space

SHARE = 0.95
LOSS_ROOM = 0.01


class Curve(NamedTuple):
    """After each trial: the share of the reference hypervolume, and the best feasible latency over the optimum."""

    volume: Floats
    regret: Floats
    suggestion_s: Floats


class Table:
    """True losses of every candidate of a pool, relative to the default's."""

    def __init__(self, pool: CandidatePool, machine: SyntheticMachine, reach: float) -> None:
        truths = [machine.truth(pool.config(assignment)) for assignment in pool.assignments]
        self.losses = np.array([(t.loss, t.p95_s, t.usd) for t in truths])
        self.losses[:, 1:] /= self.losses[0, 1:].copy()
        self._reference = np.array([LOSS_ROOM * 1.0001, reach, reach])
        self._feasible = self.losses[:, 0] <= LOSS_ROOM
        self.best_latency = self.losses[self._feasible, 1].min()
        self.volume = self._volume(np.arange(len(pool)))

    def share(self, tried: Sequence[int]) -> float:
        return self._volume(np.array(tried)) / self.volume

    def regret(self, tried: Sequence[int]) -> float:
        return float(min(self.losses[i, 1] for i in tried if self._feasible[i]) / self.best_latency)

    def _volume(self, rows: np.typing.NDArray[np.int64]) -> float:
        return hypervolume(self.losses[rows[self._feasible[rows]]], self._reference)


def search(strategy: str, pool: CandidatePool, table: Table, machine: SyntheticMachine, seed: int, num: int) -> Curve:
    problem = Problem(pool=pool, objective=parse_objective("latency"), slos=with_quality_floor(()), seed=seed)
    suggester = SUGGESTERS[strategy](problem)
    history: list[Observation] = []
    tried: list[int] = []
    curve: list[tuple[float, float, float]] = []
    while len(history) < num:
        start = time.perf_counter()
        proposal = suggester.suggest(history, [])
        seconds = time.perf_counter() - start
        assert proposal is not None
        config = pool.config(proposal.assignment)
        trial = machine.measure(len(history), config, problem.slos)
        history.append(Observation(proposal.assignment, trial))
        tried.append(pool.index[assignment_key(proposal.assignment)])
        curve.append((table.share(tried), table.regret(tried), seconds))
    return Curve(*np.array(curve).T)


def trials_to(volume: Floats, share: float = SHARE) -> float:
    """1-based; infinite when the share was never reached."""
    reached = np.flatnonzero(volume >= share)
    return float(reached[0] + 1) if len(reached) else float("inf")


def report(strategy: str, curves: list[Curve]) -> None:
    needed = np.array([trials_to(curve.volume) for curve in curves])
    at = [
        (n, np.median([c.volume[n - 1] for c in curves]))
        for n in (5, 10, 15, 20, 40, 100, 200)
        if n <= len(curves[0].volume)
    ]
    regret = [
        (n, np.median([c.regret[n - 1] for c in curves])) for n in (10, 15, 40, 200) if n <= len(curves[0].regret)
    ]
    times = np.concatenate([curve.suggestion_s[1:] for curve in curves]) * 1000
    low, middle, high = np.quantile(needed, [0.1, 0.5, 0.9], method="nearest")
    print(
        f"{strategy:<10} trials to {SHARE:.0%}: median {middle:g} [p10 {low:g}, p90 {high:g}]; "
        f"within 15: {np.mean(needed <= 15):.0%}\n"
        f"           median share of the volume: {', '.join(f'{v:.3f} at {n}' for n, v in at)}\n"
        f"           median best latency / optimum: {', '.join(f'{r:.3f} at {n}' for n, r in regret)}\n"
        f"           suggestion: median {np.median(times):.0f} ms, p95 {np.quantile(times, 0.95):.0f} ms",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--reach", type=float, default=1.5)
    parser.add_argument("--strategies", nargs="+", default=list(SUGGESTERS), choices=list(SUGGESTERS))
    arguments = parser.parse_args()
    warnings.simplefilter("error")
    base = EngineConfig(model="m")
    space = space_around(load_search_space("bundled").resolve({"draft": "d", "cores": 2}).space, base)
    pool = CandidatePool(space, base, seed=0)
    print(f"{len(pool)} configs, {arguments.seeds} machines (one seed each), {arguments.trials} trials at most")
    machines = [SyntheticMachine(seed) for seed in range(arguments.seeds)]
    tables = [Table(pool, machine, arguments.reach) for machine in machines]
    for strategy in arguments.strategies:
        runs = zip(tables, machines, range(arguments.seeds), strict=True)
        report(strategy, [search(strategy, pool, t, m, seed, arguments.trials) for t, m, seed in runs])


if __name__ == "__main__":
    main()
