"""What the members do with answers: reasons in words, errors shared among limits, rivals and decisions."""

import numpy as np
import pytest
from queue_cases import play, poisson, replayed

from workloads.records import RequestRecord
from workloads.stopping.dominated import Dominated, Rival
from workloads.stopping.first_to_stop import FirstToStop
from workloads.stopping.limit import PercentileLimit
from workloads.stopping.settled import Settled
from workloads.stopping.violated import Violated

NUM = 1000


def limit(limit_s: float, *, percentile: float = 95, metric: str = "e2el") -> PercentileLimit:
    return PercentileLimit(metric=metric, percentile=percentile, limit_s=limit_s)  # type: ignore[arg-type]


def traffic(mean_s: float, *, seed: int = 5) -> list[RequestRecord]:
    """Independent exponential latencies: p95 is 3.0 means, p50 0.69."""
    rng = np.random.default_rng(seed)
    return replayed(poisson(rng, NUM), rng.exponential(mean_s, NUM))


def test_a_reason_names_the_limit_and_counts() -> None:
    rule = Violated({"e2el:p95<1s": limit(1.0)}, num_requests=NUM, clustering={"e2el:p95<1s": 1.0})
    reason = play(rule, traffic(1.0))
    assert reason is not None
    assert reason.startswith("e2el:p95<1s is violated: ")
    assert reason.endswith("requests have E2EL above 1000 ms, 5% of them may (beyond doubt)")
    assert rule.exceeded == (limit(1.0),)


def test_the_limit_that_is_violated_is_named_among_others_that_are_kept() -> None:
    limits = {"kept": limit(9.0), "broken": limit(0.1, percentile=50)}
    reason = play(Violated(limits, num_requests=NUM, clustering=dict.fromkeys(limits, 1.0)), traffic(1.0))
    assert reason is not None
    assert reason.startswith("broken is violated")


def test_without_known_clustering_only_certainty_stops() -> None:
    rule = Violated({"slo": limit(1.0)}, num_requests=NUM, clustering={})
    reason = play(rule, traffic(1.0))
    assert reason is not None
    assert reason.startswith("slo is violated: 51 of 1000")
    assert reason.endswith("(certain)")


def test_who_is_slower_than_a_rival_in_everything_is_dominated() -> None:
    known = {"p95_e2el_ms": 1.0, "p50_ttft_ms": 1.0}
    rival = Rival(name="trial 3", limits=(limit(1.0), limit(0.2, percentile=50, metric="ttft")), clustering=known)
    reason = play(Dominated([rival], num_requests=NUM), traffic(1.0))
    assert reason is not None
    assert reason.startswith("dominated by trial 3: ")
    assert reason.count(";") == 1


def test_who_is_faster_in_one_thing_is_not_dominated() -> None:
    known = {"p95_e2el_ms": 1.0, "p50_ttft_ms": 1.0}
    rival = Rival(name="trial 3", limits=(limit(1.0), limit(2.0, percentile=50, metric="ttft")), clustering=known)
    assert play(Dominated([rival], num_requests=NUM), traffic(1.0)) is None


@pytest.mark.parametrize(("mean_s", "decision"), [(1.0, "violated"), (0.1, "met")])
def test_enough_evidence_decides_either_way(mean_s: float, decision: str) -> None:
    rule = Settled({"slo": limit(1.0)}, num_requests=NUM, clustering={"slo": 1.0})
    reason = play(rule, traffic(mean_s))
    assert reason is not None
    assert reason.startswith(f"slo is {decision}: ")
    assert rule.decision == decision
    counted = int(reason.split(" of ")[1].split()[0])
    assert counted <= NUM / 10


def test_nothing_is_settled_at_the_limit_itself() -> None:
    rule = Settled({"slo": limit(1.0)}, num_requests=NUM, clustering={"slo": 1.0})
    at_the_limit = traffic(1.0 / 3.0)
    play(rule, at_the_limit[: NUM // 2])
    assert rule.decision is None


def test_the_first_rule_to_stop_decides() -> None:
    slow = Violated({"slow": limit(9.0)}, num_requests=NUM, clustering={})
    quick = Violated({"quick": limit(0.1)}, num_requests=NUM, clustering={})
    both = FirstToStop([slow, quick])
    reason = play(both, traffic(1.0))
    assert reason is not None
    assert reason.startswith("quick is violated")
    assert both.exceeded == quick.exceeded == (limit(0.1),)
