"""Which limits and rivals a study's folder gives a candidate's replay."""

from pathlib import Path

import numpy as np
import pytest
from trial_cases import cost, quality, stopped, trial

from engine.config import EngineConfig, Quantization
from optimizer.early_stop import EarlyStop, bounds_of
from optimizer.objective import parse_objective
from optimizer.results import TrialResult
from optimizer.slo import evaluate_trial, parse_slos
from optimizer.trial_folder import TrialFolder
from workloads.records import RequestRecord
from workloads.stopping.first_to_stop import FirstToStop
from workloads.stopping.limit import PercentileLimit

NUM = 200
CANDIDATE = EngineConfig(model="m", seed=9)


def records(latency_s: float, *, num: int = NUM) -> list[RequestRecord]:
    """One request a second; E2EL spread around the latency, first token at half of it."""
    draws = latency_s * np.random.default_rng(2).uniform(0.5, 1.5, num)
    return [
        RequestRecord(
            request_id=str(i),
            intended_start_s=float(i),
            sent_s=float(i),
            first_token_s=i + draws[i] / 2,
            token_times_s=(i + draws[i] / 2, i + draws[i]),
            end_s=i + draws[i],
            input_tokens=10,
            output_tokens=2,
            status="ok",
        )
        for i in range(num)
    ]


def measured(directory: Path, result: TrialResult, slos: str, *, latency_s: float = 1.0) -> TrialResult:
    folder = TrialFolder(directory, result.number)
    found = result.model_copy(update={"slos": tuple(evaluate_trial(slo, result) for slo in parse_slos(slos))})
    folder.begin(result.config)
    folder.write_records(records(latency_s))
    folder.finish(found)
    return found


def reason(rule: FirstToStop | None, latency_s: float) -> str | None:
    """Of a candidate with that latency, looked at after every request."""
    assert rule is not None
    for record in records(latency_s):
        found = rule.look(record.end_s, [record], [])
        if found is not None:
            return found
    return None


def early_stop(directory: Path, *, slos: str = "quality>=0.9", objective: str = "latency") -> EarlyStop:
    return EarlyStop(study_dir=directory, objective=parse_objective(objective), slos=parse_slos(slos), num_requests=NUM)


def test_nothing_stops_before_the_default_is_measured(tmp_path: Path) -> None:
    assert early_stop(tmp_path, slos="e2el:p95<1s").rule(CANDIDATE, quality=None, cost=cost(1.0)) is None


def test_a_violated_slo_stops_and_a_kept_one_does_not(tmp_path: Path) -> None:
    slos = "e2el:p95<2s"
    measured(tmp_path, trial(0, p95_s=1.0), slos)
    stop = early_stop(tmp_path, slos=slos)
    free = cost(0.1)  # cheaper than the default: nobody dominates
    assert (reason(stop.rule(CANDIDATE, quality=None, cost=free), 4.0) or "").startswith("e2el:p95<2s is violated")
    assert reason(stop.rule(CANDIDATE, quality=None, cost=free), 1.0) is None


def test_while_nothing_meets_the_slos_only_what_is_farther_than_the_nearest_stops(tmp_path: Path) -> None:
    slos = "e2el:p95<500ms"
    measured(tmp_path, trial(0, p95_s=2.0), slos)  # past it by 300%
    stop = early_stop(tmp_path, slos=slos)
    free = cost(0.1)
    assert reason(stop.rule(CANDIDATE, quality=None, cost=free), 1.2) is None  # nearer: an answer to what is needed
    assert reason(stop.rule(CANDIDATE, quality=None, cost=free), 4.0) is not None


def test_who_is_slower_and_dearer_than_a_lossless_trial_is_dominated(tmp_path: Path) -> None:
    measured(tmp_path, trial(0, p95_s=1.4, usd=1.0), "quality>=0.9")
    stop = early_stop(tmp_path)
    assert (reason(stop.rule(CANDIDATE, quality=None, cost=cost(2.0)), 3.0) or "").startswith("dominated by trial 0")
    assert reason(stop.rule(CANDIDATE, quality=None, cost=cost(2.0)), 1.0) is None


@pytest.mark.parametrize(
    ("rival", "candidate_cost", "objective"),
    [
        ({"usd": 1.0}, 0.9, "latency"),  # the candidate may be cheaper
        ({"q": 0.95, "config": EngineConfig(model="m", quantization=Quantization(weights="int8"))}, 2.0, "latency"),
        ({"q": 0.5}, 2.0, "latency"),  # the rival misses the floor
        ({"usd": 1.0}, 2.0, "output_throughput"),  # not what a limit on requests can say
    ],
)
def test_no_rival_where_something_else_may_be_better(
    tmp_path: Path, rival: dict[str, object], candidate_cost: float, objective: str
) -> None:
    measured(tmp_path, trial(0, p95_s=1.4, **rival), "quality>=0.9")  # type: ignore[arg-type]
    stop = early_stop(tmp_path, objective=objective)
    assert stop.rule(CANDIDATE, quality=None, cost=cost(candidate_cost)) is None


def test_a_rival_must_also_win_in_the_objectives_own_latency(tmp_path: Path) -> None:
    found = trial(0, p95_s=1.4, usd=1.0, metrics={"p50_ttft_ms": 4000.0})
    measured(tmp_path, found, "quality>=0.9")
    stop = early_stop(tmp_path, objective="ttft:p50")
    assert reason(stop.rule(CANDIDATE, quality=None, cost=cost(2.0)), 3.0) is None  # p50 TTFT 1.5 s, the rival's 4 s


def test_the_quality_that_is_known_of_a_class_counts(tmp_path: Path) -> None:
    int8 = EngineConfig(model="m", quantization=Quantization(weights="int8"))
    measured(tmp_path, trial(0, p95_s=1.4, usd=1.0, q=0.95, config=int8), "quality>=0.9")
    stop = early_stop(tmp_path)
    assert stop.rule(CANDIDATE, quality=quality(0.91), cost=cost(2.0)) is not None
    assert stop.rule(CANDIDATE, quality=quality(0.99), cost=cost(2.0)) is None


def test_a_stopped_trial_is_no_rival_and_no_reference(tmp_path: Path) -> None:
    TrialFolder(tmp_path, 0).finish(stopped(0, bounds={"p95_e2el_ms": 1.0}))
    assert early_stop(tmp_path).rule(CANDIDATE, quality=None, cost=cost(2.0)) is None


def test_bounds_are_what_was_exceeded_and_the_cost_at_best() -> None:
    exceeded = (PercentileLimit(metric="e2el", percentile=95, limit_s=0.5),)
    assert bounds_of(exceeded, cost(2.0, 0.1)) == {
        "p95_e2el_ms": pytest.approx(500.0),
        "usd_per_million_tokens": pytest.approx(1.8),
    }
