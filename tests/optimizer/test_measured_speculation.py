"""What a measured replay tells a simulation of others: speculation by request, and what requests take beside steps."""

from dataclasses import replace
from pathlib import Path

import pytest

from engine.backend import EngineStatistics
from engine.simulator.oracle import ConstantOracle
from engine.simulator.settings import SchedulerSettings
from engine.simulator.simulate import simulate
from optimizer.errors import OptimizerError
from optimizer.measured_speculation import acceptance_profile, tokens_per_step
from optimizer.prompt_tokens import PromptTokenizer
from optimizer.request_overhead import fitted_overhead
from optimizer.simulated_replay import SimulatedReplay, simulated_replay
from workloads.metadata import Source, WorkloadMetadata
from workloads.records import RequestRecord
from workloads.request import Request
from workloads.workload import Workload

SETTINGS = SchedulerSettings(num_blocks=1000)
STEP = ConstantOracle(seconds=0.01)
MODEL = Path(__file__).parents[2] / "workloads/demo/models/target"


def record(name: str, times: tuple[float, ...]) -> RequestRecord:
    return RequestRecord(
        request_id=name, intended_start_s=0.0, sent_s=0.0, first_token_s=times[0], token_times_s=times,
        end_s=times[-1], input_tokens=5, output_tokens=len(times), status="ok",
    )  # fmt: skip


@pytest.fixture
def replay() -> SimulatedReplay:
    requests = [Request(request_id=str(n), arrival_s=n / 3, input_tokens=20, output_tokens=9) for n in range(60)]
    return simulated_replay(Workload.from_requests(requests, WorkloadMetadata(name="t", source=Source(format="t"))))


def test_tokens_of_one_moment_are_one_step() -> None:
    # After the first token: 4 tokens in 2 steps; one step says nothing.
    records = [record("a", (1.0, 2.0, 2.0, 2.0, 3.0)), record("b", (1.0,))]
    assert tokens_per_step(records) == {"a": 2.0}


def test_a_profile_counts_steps_without_drafts_as_not_kept() -> None:
    # 4 steps, 3 of them with a draft of two: place 1 kept in 2 of 4, place 2 in 1 of those 2.
    statistics = EngineStatistics(
        num_drafts=3, num_draft_tokens=6, num_accepted_tokens=3, accepted_tokens_per_position=(2, 1)
    )
    profile = acceptance_profile([record("a", (0.0, 1.0, 1.0, 2.0, 3.0, 3.0, 3.0, 4.0))], statistics)
    assert profile.per_position == (0.5, 0.5)
    assert (profile.drafted, profile.drafted_share) == (1.5, 0.75)
    with pytest.raises(OptimizerError, match="nothing was drafted"):
        acceptance_profile([record("a", (0.0, 1.0))], EngineStatistics())


def test_a_trees_profile_tells_depths_and_costs_nodes() -> None:
    # 4 steps, 3 of them with a tree of 7 tokens, two of them in a row at most.
    statistics = EngineStatistics(
        num_drafts=3, num_draft_tokens=21, num_accepted_tokens=3, accepted_tokens_per_position=(2, 1)
    )
    replay = [record("a", (0.0, 1.0, 1.0, 2.0, 3.0, 3.0, 3.0, 4.0))]
    profile = acceptance_profile(replay, statistics, tree_nodes=7)
    assert profile.per_position == (0.5, 0.5)
    assert (profile.num_draft_tokens, profile.drafted, profile.drafted_share) == (7, 5.25, 0.75)


def test_an_overhead_that_was_added_is_found(replay: SimulatedReplay) -> None:
    outcome = simulate(replay.traffic, replace(SETTINGS, request_overhead_s=0.004), STEP)
    found = fitted_overhead(replay, SETTINGS, STEP, replay.records(outcome))
    again = simulate(replay.traffic, replace(SETTINGS, **found._asdict()), STEP)
    assert again.ttft_s == pytest.approx(outcome.ttft_s, rel=0.05)
    quick = simulate(replay.traffic, SETTINGS, ConstantOracle(seconds=0.005))
    assert fitted_overhead(replay, SETTINGS, STEP, replay.records(quick)) == (0.0, 0.0)
    with pytest.raises(OptimizerError, match="of other requests"):
        fitted_overhead(replay, SETTINGS, STEP, [record("nobody", (1.0,))])


def test_prompts_of_a_chat_are_tokens_of_its_template() -> None:
    tokens = PromptTokenizer(MODEL)
    chat = Request(request_id="a", messages='[{"role": "user", "content": "hello there"}]')
    longer = replace(chat, messages='[{"role": "user", "content": "hello there friend"}]')
    assert tokens(chat)
    assert tokens(chat) != tokens(longer)
    assert list(tokens(Request(request_id="b", prompt_token_ids=(1, 2)))) == [1, 2]
    assert list(tokens(Request(request_id="c"))) == []
    assert list(PromptTokenizer(MODEL / "none")(chat)) == []
