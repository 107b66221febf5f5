"""Single rules on small cases whose arithmetic can be done by hand."""

import numpy as np
import pytest
from simulator_cases import LinearOracle, traffic

from engine.config import EngineConfig
from engine.simulator.acceptance import AcceptanceProfile, StepDrawer
from engine.simulator.errors import SimulatorError
from engine.simulator.instance_split import InstanceSplit
from engine.simulator.oracle import ConstantOracle
from engine.simulator.server import SimulatedServer
from engine.simulator.settings import SchedulerSettings, settings_of
from engine.simulator.simulate import simulate

SECOND = ConstantOracle(seconds=1.0)


def scheduler(**fields: object) -> SchedulerSettings:
    return SchedulerSettings(**{"num_blocks": 1_000, "max_num_batched_tokens": 64, **fields})  # type: ignore[arg-type]


def test_a_long_prompt_takes_chunks_while_others_decode() -> None:
    oracle = LinearOracle()
    simulate(traffic([(0, 10, 5), (0.005, 100, 1)]), scheduler(), oracle)
    steps = [(prefill, decoding) for _, prefill, _, decoding, _, _ in oracle.asked]
    assert steps[:3] == [(10, 0), (63, 1), (37, 1)]


def test_decode_runs_are_jumped() -> None:
    oracle = LinearOracle()
    simulate(traffic([(0, 10, 10_000)]), scheduler(), oracle)
    assert len(oracle.asked) == 3  # the prompt, the first and the last of 9,999 decode steps


def test_a_jump_lasts_as_long_as_its_steps() -> None:
    oracle = LinearOracle(per_context_s=1e-6)
    outcome = simulate(traffic([(0, 10, 101)]), scheduler(), oracle)
    steps = sum(0.01 + 1e-5 + 1e-6 * (10 + step) for step in range(100))
    assert outcome.end_s[0] - outcome.first_token_s[0] == pytest.approx(steps)


def test_an_arrival_waits_for_the_step_that_is_running() -> None:
    outcome = simulate(traffic([(0, 1, 10), (4.5, 1, 1)]), scheduler(), SECOND)
    assert outcome.first_token_s.tolist() == [1, 6]


def test_under_async_scheduling_an_arrival_waits_for_the_step_that_is_scheduled_too() -> None:
    rows = [(0, 1, 10), (4.5, 1, 1), (20.5, 1, 1)]
    outcome = simulate(traffic(rows), scheduler(async_scheduling=True), SECOND)
    assert outcome.first_token_s.tolist() == [1, 7, 21.5]  # an idle engine has nothing scheduled
    assert outcome.end_s[0] == 10


def test_a_lower_priority_number_goes_first() -> None:
    rows = [(0.0, 1, 5), (1.0, 1, 1), (2.0, 1, 1)]
    priority = np.array([0, 1, 0])
    load = traffic(rows, priority=priority)
    by_priority = scheduler(max_num_seqs=1, scheduling_policy="priority")
    assert simulate(load, by_priority, SECOND).end_s.tolist() == [5, 7, 6]
    assert simulate(load, scheduler(max_num_seqs=1), SECOND).end_s.tolist() == [5, 6, 7]


def test_a_turn_starts_after_its_parents_end_and_a_thought() -> None:
    rows = [(0.0, 1, 5), (0.0, 1, 1)]
    load = traffic(rows, parent=np.array([-1, 0]), think_s=np.array([0.0, 2.0]))
    outcome = simulate(load, scheduler(), SECOND)
    assert outcome.start_s.tolist() == [0, 7]


def test_a_closed_loop_keeps_its_concurrency() -> None:
    outcome = simulate(traffic([(0.0, 1, 4)] * 6, max_concurrency=2), scheduler(), SECOND)
    assert outcome.start_s.tolist() == [0, 0, 4, 4, 8, 8]


def test_a_shared_prefix_is_computed_once_until_it_is_evicted() -> None:
    rows = [(0.0, 33, 1), (10.0, 33, 1), (20.0, 130, 1), (30.0, 33, 1)]
    names = [[1, 2], [1, 2], [], [1, 2]]
    roomy = simulate(traffic(rows, block_hashes=names), scheduler(), SECOND)
    assert roomy.num_cached_tokens.tolist() == [0, 32, 0, 32]
    tight = simulate(traffic(rows, block_hashes=names), scheduler(num_blocks=11), SECOND)
    assert tight.num_cached_tokens.tolist() == [0, 32, 0, 16]


def test_speculation_takes_fewer_steps_in_the_expected_measure() -> None:
    profile = AcceptanceProfile(per_position=(0.8, 0.5))
    assert profile.mean_tokens == pytest.approx(1 + 0.8 + 0.4)
    drawer = StepDrawer(profile, seed=1)
    assert sum(drawer.steps(100) for _ in range(500)) == pytest.approx(500 * 100 / 2.2, rel=0.02)
    assert StepDrawer(AcceptanceProfile(per_position=(1.0,)), seed=0).steps(50_000) == 25_000


def test_prefix_aware_routing_finds_the_cached_prompt() -> None:
    rows = [(float(i), 160, 1) for i in range(12)]
    names = [[i % 3 * 100 + j for j in range(9)] for i in range(12)]
    load = traffic(rows, block_hashes=names)
    hits = {
        router: int(simulate(load, scheduler(), SECOND, num_replicas=2, router=router).num_cached_tokens.sum())
        for router in ("round_robin", "prefix_aware")
    }
    assert hits["prefix_aware"] == 9 * 144
    assert hits["round_robin"] < hits["prefix_aware"]


def test_two_replicas_halve_a_queue() -> None:
    load = traffic([(0.0, 1, 10)] * 4)
    ends = simulate(load, scheduler(max_num_seqs=1), SECOND, num_replicas=2, router="least_loaded").end_s
    assert sorted(ends.tolist()) == [10, 10, 20, 20]


@pytest.mark.parametrize(
    ("rows", "fields", "words"),
    [
        ([(0.0, 500, 1)], {"num_blocks": 20}, "does not fit the KV cache of 320 tokens"),
        ([(0.0, 100, 1)], {"enable_chunked_prefill": False}, "chunked prefill is off"),
    ],
)
def test_a_request_that_never_fits_is_refused(rows: list, fields: dict, words: str) -> None:
    with pytest.raises(SimulatorError, match=words):
        simulate(traffic(rows), scheduler(**fields), SECOND)


def test_bad_traffic_says_what_is_wrong() -> None:
    with pytest.raises(SimulatorError, match="parents come first"):
        traffic([(0.0, 1, 1)], parent=np.array([0]))
    with pytest.raises(SimulatorError, match="arrival_s"):
        traffic([(-1.0, 1, 1)])
    with pytest.raises(SimulatorError, match="no router is called 'best'"):
        simulate(traffic([(0.0, 1, 1)]), scheduler(), SECOND, router="best")


def test_speculation_without_a_profile_is_not_guessed() -> None:
    config = EngineConfig(model="m", speculative_config={"method": "ngram", "num_speculative_tokens": 4})
    with pytest.raises(SimulatorError, match="acceptance"):
        settings_of(config, num_blocks=10)


def test_a_request_whose_acceptance_is_known_takes_its_own_steps() -> None:
    half = AcceptanceProfile(per_position=(0.5, 0.5))
    rows = traffic([(0, 10, 31), (100, 10, 31)], tokens_per_step=np.array([3.0, 1.0]))
    outcome = simulate(rows, scheduler(acceptance=half), SECOND)
    assert outcome.e2el_s.tolist() == [1 + 30 / 3, 1 + 30]


def test_a_step_costs_the_drafts_that_are_made_not_those_that_may_be() -> None:
    oracle = LinearOracle()
    sparse = AcceptanceProfile(per_position=(0.1, 0.1, 0.1, 0.1), drafted=1.0)
    simulate(traffic([(0, 10, 9)]), scheduler(acceptance=sparse), oracle)
    assert {drafts for *_, decoding, _, drafts in oracle.asked if decoding} == {1.0}
    tree = AcceptanceProfile(per_position=(0.1, 0.1), drafted=6.0, tree_nodes=8)
    simulate(traffic([(0, 10, 9)]), scheduler(acceptance=tree), oracle)
    assert {drafts for *_, decoding, _, drafts in oracle.asked if decoding} == {1.0, 6.0}
    with pytest.raises(SimulatorError, match="5 tokens are drafted a step, of 1 at most"):
        AcceptanceProfile(per_position=(0.5,), drafted=5.0)


def test_tokens_per_step_below_one_are_refused() -> None:
    with pytest.raises(SimulatorError, match="every step of an answer gives a token"):
        traffic([(0, 10, 9)], tokens_per_step=np.array([0.5]))


def test_tokens_arrive_a_share_of_their_step_after_it() -> None:
    outcome = simulate(traffic([(0, 10, 4), (0.5, 10, 1)]), scheduler(delivery_share=0.5), SECOND)
    assert outcome.token_times_s.tolist() == [1.5, 2.5, 3.5, 4.5, 2.5]
    assert outcome.first_token_s.tolist() == [1.5, 2.5]
    assert outcome.end_s.tolist() == [4.5, 2.5]


def test_a_replica_runs_no_further_than_anothers_end_could_bring_it_a_request() -> None:
    rows = [(0, 1, 100), (0, 1, 3), (0, 1, 1), (0, 1, 1)]
    outcome = simulate(traffic(rows, max_concurrency=2), scheduler(), SECOND, num_replicas=2)
    assert outcome.replica.tolist() == [0, 1, 0, 1]
    assert outcome.start_s.tolist() == [0, 0, 3, 4]  # the third comes to a replica that is busy until 100
    assert outcome.first_token_s.tolist() == [1, 1, 4, 5]


@pytest.mark.parametrize("seed", range(12))
def test_jumping_ahead_of_other_replicas_changes_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(seed)
    rows = [(float(draw.random()), int(draw.integers(1, 300)), int(draw.integers(1, 150))) for _ in range(120)]
    load = traffic(rows, max_concurrency=int(draw.integers(4, 24)))
    apart = InstanceSplit(prefill_instances=2, decode_instances=2, latency_s=0.001, block_s=0.0001)
    fields = {"num_blocks": int(draw.integers(40, 120)), "split": apart if seed % 2 else None}
    tight = scheduler(max_num_seqs=6, max_num_batched_tokens=128, **fields)
    num_replicas, router = 2 + seed % 3, ("round_robin", "least_loaded", "prefix_aware")[seed % 3]
    jumped = simulate(load, tight, LinearOracle(), num_replicas=num_replicas, router=router)
    monkeypatch.setattr(SimulatedServer, "earliest_end_s", property(lambda server: server.now_s))
    stepped = simulate(load, tight, LinearOracle(), num_replicas=num_replicas, router=router)
    assert jumped.replica.tolist() == stepped.replica.tolist()
    np.testing.assert_allclose(jumped.first_token_s, stepped.first_token_s)
    np.testing.assert_allclose(jumped.end_s, stepped.end_s)
