"""How many requests a decision takes (performance.md, P9): run `python -m tests.benchmarks.short_trials`.

Made-up machines serve 3,000 requests in the simulator, each with configs drawn from the bundled space. As in a study,
configs come one after the other, and each is kept, rejected for an SLO, or found to be dominated (quality, p95 E2EL,
cost) by one that was kept before. The full trace says which; the stop rules say it earlier, on the same records, or
replay to the end. Counted are the requests that were *sent* by then. `hardest first` begins the trace where its
arrivals pile up most, and is compared with the decision on the trace as it was recorded. A rejection is the same when
its reason is true of the full trace (what violates an SLO is often dominated too). `independent` is P9's second half:
requests without a queue, 1% of which may be above a limit.

Prints figures; gates nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import beta

from engine.config import EngineConfig
from engine.simulator.acceptance import AcceptanceProfile
from engine.simulator.oracle import Provenance, Source
from engine.simulator.settings import settings_of
from engine.simulator.simulate import simulate
from engine.simulator.traffic import Floats, Traffic
from optimizer.candidate import space_around
from optimizer.recommendation import TIE
from optimizer.suggest.pool import CandidatePool
from search_spaces.space import load_search_space
from workloads.records import RequestRecord
from workloads.stopping.clustering import clustering_of
from workloads.stopping.limit import LimitedMetric, PercentileLimit
from workloads.stopping.limit_test import LimitTest
from workloads.stopping.settled import Settled
from workloads.stopping.stop_rule import InFlight
from workloads.stopping.violated import ALPHA

BASE = EngineConfig(model="m")
LOOK_EVERY = 5  # requests
NUM_BLOCKS = 6_000
RIVAL = "rival"


class Case(NamedTuple):
    name: str
    load: float  # of the default config's saturation
    bursty: bool


CASES = (
    Case("steady, 40% load", 0.4, False),
    Case("steady, 70% load", 0.7, False),
    Case("bursty, 50% load", 0.5, True),
)


class Machine:
    """Step times of every config of the space, its constants drawn from the seed."""

    def __init__(self, seed: int) -> None:
        draw = np.random.default_rng(seed).uniform
        self._weights = {"bf16": 1.0, "int8": draw(0.6, 1.1)} | {f"int4_g{g}": draw(0.5, 1.3) for g in (32, 64, 128)}
        self._dtype = {"auto": 1.0, "float32": draw(0.9, 1.8)}
        self._token = {"auto": draw(4e-5, 1e-4), "float32": draw(8e-5, 2e-4)}
        self._fixed_s, self._one_thread, self._draft = draw(0.8e-3, 1.5e-3), draw(1.1, 1.8), draw(0.1, 0.3)
        self._acceptance = {"draft_model": draw(0.5, 0.85), "ngram": draw(0.2, 0.75), "suffix": draw(0.3, 0.8)}
        self._losses = {"bf16": 0.0, "int8": 0.002, "int4_g32": 0.008, "int4_g64": 0.012, "int4_g128": 0.02}

    def loss(self, config: EngineConfig) -> float:
        return self._losses[config.quantization.weights] + (0.0005 if config.dtype == "float32" else 0.0)

    def acceptance(self, config: EngineConfig) -> AcceptanceProfile | None:
        speculation = config.speculative_config
        if speculation is None:
            return None
        most = speculation.num_speculative_tokens
        return AcceptanceProfile(per_position=(self._acceptance[speculation.method],) * (4 if most == "auto" else most))

    def oracle(self, config: EngineConfig) -> _Steps:
        threads = 1.0 if config.num_threads is None else self._one_thread
        fixed = self._fixed_s * self._weights[config.quantization.weights] * self._dtype[config.dtype]
        drafting = config.speculative_config is not None and config.speculative_config.method == "draft_model"
        return _Steps(fixed * threads, self._token[config.dtype] * threads, self._draft * fixed if drafting else 0.0)


class _Steps(NamedTuple):
    """A step: fixed + tokens x token_s, and what drafting a token costs."""

    fixed_s: float
    token_s: float
    draft_s: float

    @property
    def provenance(self) -> Provenance:
        return Provenance(source=Source.CONSTANT, detail="made up")

    def step_s(
        self,
        prefill_seqs: int,  # noqa: ARG002
        prefill_tokens: int,
        prefill_context: int,  # noqa: ARG002
        decode_seqs: int,
        decode_context: float,  # noqa: ARG002
        draft_tokens: int,
    ) -> float:
        drafts = draft_tokens / decode_seqs * self.draft_s if decode_seqs else 0.0
        return self.fixed_s + (prefill_tokens + decode_seqs + draft_tokens) * self.token_s + drafts


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


def decide_fully(run: Run, limits: dict[str, PercentileLimit], rival: PercentileLimit | None) -> tuple[str, ...]:
    """What is true of a full trace."""
    found = ["violated"] if any(run.percentile(limit) > limit.limit_s for limit in limits.values()) else []
    found += ["dominated"] if rival is not None and run.percentile(rival) > rival.limit_s else []
    return tuple(found) or ("kept",)


def decide_early(
    run: Run, limits: dict[str, PercentileLimit], rival: PercentileLimit | None, known: dict[str, float | None]
) -> tuple[str | None, int]:
    """The decision, None when the trace ended without one; and the requests sent by then."""
    wanted = limits | ({RIVAL: rival} if rival is not None else {})
    rule = Settled(wanted, num_requests=len(run.records), clustering=known)
    for num_sent, now, ended, flying in looks(run.records):
        reason = rule.look(now, ended, flying)
        if reason is not None:
            if rule.decision == "met":
                return "kept", num_sent
            return ("dominated" if reason.startswith(RIVAL) else "violated"), num_sent
    return None, len(run.records)


def looks(records: Sequence[RequestRecord]) -> Iterator[tuple[int, float, list[RequestRecord], list[InFlight]]]:
    """What a replay shows after every `LOOK_EVERY` requests sent, and at its end."""
    by_end = sorted(records, key=lambda record: record.end_s)
    num_ended, flying = 0, {}
    for row, record in enumerate(records):
        flying[record.request_id] = record
        if (row + 1) % LOOK_EVERY and row + 1 < len(records):
            continue
        now = record.intended_start_s if row + 1 < len(records) else by_end[-1].end_s
        begin = num_ended
        while num_ended < len(by_end) and by_end[num_ended].end_s <= now:
            flying.pop(by_end[num_ended].request_id)
            num_ended += 1
        known = [(r, r.first_token_s if (r.first_token_s or now) < now else None) for r in flying.values()]
        told = [InFlight(r.request_id, r.intended_start_s, first) for r, first in known]
        yield row + 1, now, by_end[begin:num_ended], told


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


@dataclass(frozen=True, kw_only=True)
class Row:
    """`agreement` with its 95% interval (Clopper-Pearson); `fewer` is requests of the full traces over those sent."""

    case: str
    decision: str
    n: int
    agreement: float
    low: float
    high: float
    fewer: float
    median_sent: float
    undecided: int


def row_of(case: str, decision: str, verdicts: Sequence[Verdict]) -> Row:
    num, right = len(verdicts), sum(v.early is None or v.early in v.full for v in verdicts)
    low = float(beta.ppf(0.025, right, num - right + 1)) if right else 0.0
    high = float(beta.ppf(0.975, right + 1, num - right)) if right < num else 1.0
    sent = np.array([v.num_sent for v in verdicts])
    fewer = sum(v.num_requests for v in verdicts) / sent.sum()
    undecided = sum(v.early is None for v in verdicts)
    return Row(
        case=case,
        decision=decision,
        n=num,
        agreement=right / num,
        low=low,
        high=high,
        fewer=float(fewer),
        median_sent=float(np.median(sent)),
        undecided=undecided,
    )


def independent(num_runs: int) -> dict[str, float]:
    """Requests to reject a limit of 1% that 5% exceed."""
    limit = _limit("e2el", 99, -float(np.log(0.05)))
    needed = []
    for draws in np.random.default_rng(0).exponential(1.0, (num_runs, 1000)):
        test = LimitTest(limit, num_requests=10**9, alpha=ALPHA, clustering=1.0)
        for i, latency in enumerate(draws.tolist()):
            end = i + latency
            test.update(1e9, [_one(i, end)], [])
            if test.exceeded:
                break
        needed.append(i + 1)
    boot = np.random.default_rng(1).choice(needed, (1000, num_runs))
    low, high = np.quantile(np.median(boot, axis=1), [0.025, 0.975])
    return {
        "n": num_runs,
        "median": float(np.median(needed)),
        "low": float(low),
        "high": float(high),
        "mean": float(np.mean(needed)),
    }


def _one(number: int, end_s: float) -> RequestRecord:
    return RequestRecord(
        request_id=str(number),
        intended_start_s=float(number),
        sent_s=float(number),
        first_token_s=end_s,
        token_times_s=(end_s,),
        end_s=end_s,
        input_tokens=1,
        output_tokens=1,
        status="ok",
    )


def report(rows: Sequence[Row], environment: dict[str, str], alone: dict[str, float]) -> None:
    print("; ".join(f"{key} {value}" for key, value in environment.items()))
    table = Table(
        "traffic", "full decision", "n", "same decision", "95%", "fewer requests", "median sent", "to the end"
    )
    for r in rows:
        ends = f"{r.low:.1%} to {r.high:.1%}"
        cells = (str(r.n), f"{r.agreement:.1%}", ends, f"{r.fewer:.1f}x", f"{r.median_sent:.0f}", str(r.undecided))
        table.add_row(r.case, r.decision, *cells)
    Console(width=140).print(table)
    print(
        f"independent requests, 5% above a limit that 1% may exceed: rejected in a median of {alone['median']:.0f} "
        f"[{alone['low']:.0f}, {alone['high']:.0f}] requests, mean {alone['mean']:.0f} "
        f"({alone['n']:.0f} runs, α = {ALPHA})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=3)
    parser.add_argument("--configs", type=int, default=40, help="a machine")
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    begin = time.perf_counter()
    verdicts: list[Verdict] = []
    for rotate in (False, True):
        for case in CASES:
            for seed in range(arguments.machines):
                verdicts += study(case, seed, arguments.configs, arguments.requests, rotate=rotate)
    rows = []
    for name in dict.fromkeys(v.case for v in verdicts):
        mine = [v for v in verdicts if v.case == name]
        rows.append(row_of(name, "all", mine))
        for decision in ("violated", "dominated", "kept"):
            if some := [v for v in mine if v.full[0] == decision]:
                rows.append(row_of(name, decision, some))
    for rotated in (False, True):
        some = [v for v in verdicts if v.case.endswith("hardest first") is rotated]
        rows.append(row_of("all, hardest first" if rotated else "all", "all", some))
    alone = independent(400)
    environment = {
        "machine": platform.machine(),
        "cores": str(os.cpu_count()),
        "Python": platform.python_version(),
        "numpy": np.__version__,
        "machines": str(arguments.machines),
        "configs": str(arguments.configs),
        "requests": str(arguments.requests),
        "seconds": f"{time.perf_counter() - begin:.0f}",
    }
    report(rows, environment, alone)
    if arguments.json:
        content = {"environment": environment, "rows": [asdict(r) for r in rows], "independent": alone}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
