"""Workloads in, request records out, without an engine."""

import numpy as np
import pytest

from engine.simulator.oracle import ConstantOracle
from engine.simulator.settings import SchedulerSettings
from engine.simulator.simulate import simulate
from optimizer.errors import OptimizerError
from optimizer.simulated_replay import simulated_replay
from workloads.metadata import PrefixHashing, Source, WorkloadMetadata
from workloads.metrics import summarize
from workloads.request import Request
from workloads.workload import Workload

SETTINGS = SchedulerSettings(num_blocks=1000)
SECOND = ConstantOracle(seconds=1.0)


def request(name: str, arrival_s: float | None, **fields: object) -> Request:
    values = {"request_id": name, "arrival_s": arrival_s, "input_tokens": 40, "output_tokens": 3}
    return Request(**{**values, **fields})  # type: ignore[arg-type]


def workload(*requests: Request, **fields: object) -> Workload:
    metadata = {"name": "test", "source": Source(format="test"), **fields}
    return Workload.from_requests(requests, WorkloadMetadata(**metadata))  # type: ignore[arg-type]


def test_records_and_columns_say_the_same() -> None:
    replay = simulated_replay(workload(request("a", 0.0), request("b", 0.5, slo_class="fast", output_tokens=1)))
    outcome = simulate(replay.traffic, SETTINGS, SECOND)
    records = replay.records(outcome)
    assert [record.token_times_s for record in records] == [(1.0, 2.0, 3.0), (2.0,)]
    assert (records[1].slo_class, records[1].intended_start_s, records[1].status) == ("fast", 0.5, "ok")
    assert summarize(records).flat(thin_tails=True) == summarize(replay.arrays(outcome)).flat(thin_tails=True)


def test_turns_wait_for_their_parents_in_a_closed_loop_only() -> None:
    turns = (
        request("a", 0.0, session_id="s", turn=0),
        request("b", 1.0, session_id="s", turn=1, parent_ids=("a",), think_s=2.0),
    )
    open_loop = simulated_replay(workload(*turns))
    closed = simulated_replay(workload(*turns), closed_loop=True)
    assert simulate(open_loop.traffic, SETTINGS, SECOND).start_s.tolist() == [0.0, 1.0]
    assert simulate(closed.traffic, SETTINGS, SECOND).start_s.tolist() == [0.0, 5.0]


def test_a_turn_finds_the_answer_before_it_in_the_cache() -> None:
    names = (1, 2, 3, 4)
    turns = (
        request("a", 0.0, session_id="s", turn=0, input_tokens=32, output_tokens=17, prefix_hashes=names[:2]),
        request(
            "b", 60.0, session_id="s", turn=1, input_tokens=65, parent_ids=("a",), think_s=1.0, prefix_hashes=names
        ),
    )
    recorded = workload(*turns, prefix=PrefixHashing(block_size=16))
    replay = simulated_replay(recorded, closed_loop=True)
    assert replay.traffic.block_hashes == [[1, 2, 3], [1, 2, 3, 4]]
    assert simulate(replay.traffic, SETTINGS, SECOND).num_cached_tokens.tolist() == [0, 48]


def test_names_of_a_session_are_not_anothers() -> None:
    both = (
        request("a", 0.0, session_id="s", prefix_hashes=(1, 2)),
        request("b", 9.0, session_id="t", prefix_hashes=(1, 2)),
    )
    for scope, cached in (("global", 32), ("session", 0)):
        recorded = workload(*both, prefix=PrefixHashing(block_size=16, scope=scope))
        outcome = simulate(simulated_replay(recorded).traffic, SETTINGS, SECOND)
        assert outcome.num_cached_tokens[1] == cached


def test_token_ids_share_whole_blocks() -> None:
    ids = tuple(range(40))
    replay = simulated_replay(
        workload(request("a", 0.0, prompt_token_ids=ids), request("b", 9.0, prompt_token_ids=ids))
    )
    assert simulate(replay.traffic, SETTINGS, SECOND).num_cached_tokens.tolist() == [0, 32]


def test_parents_come_before_their_followers() -> None:
    turns = (
        request("b", 0.0, session_id="s", turn=1, parent_ids=("a",)),
        request("a", 0.0, session_id="s", turn=0),
    )
    replay = simulated_replay(workload(*turns), closed_loop=True)
    assert [r.request_id for r in replay.requests] == ["a", "b"]
    assert np.array_equal(replay.traffic.parent, [-1, 0])


def test_tenants_are_served_in_turn_where_the_policy_is_fair() -> None:
    busy = [request(f"a{i}", 0.0, tenant="a") for i in range(4)]
    replay = simulated_replay(workload(*busy, request("b", 0.5, tenant="b"), request("nobody", 0.5)))
    assert replay.traffic.client is not None
    assert replay.traffic.client.tolist() == [0, 0, 0, 0, 1, 2]
    one_by_one = SchedulerSettings(num_blocks=1000, max_num_seqs=1, scheduling_policy="fair")
    assert simulate(replay.traffic, one_by_one, SECOND).end_s.tolist() == [3, 12, 15, 18, 6, 9]
    assert simulated_replay(workload(request("a", 0.0))).traffic.client is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"output_tokens": None}, "token counts"),
        ({"arrival_s": None}, "arrival time"),
        ({"output_tokens": 0}, "no requests"),
    ],
)
def test_what_cannot_be_simulated_says_so(fields: dict[str, object], words: str) -> None:
    with pytest.raises(OptimizerError, match=words):
        simulated_replay(workload(request("a", **{"arrival_s": 0.0, **fields})))  # type: ignore[arg-type]
