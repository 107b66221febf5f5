"""Prefill and decode apart: what holds for all traffic, and cases whose arithmetic can be done by hand."""

from collections.abc import Iterator
from dataclasses import replace
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from simulator_cases import LinearOracle, settings, traffic, traffics

from engine.simulator import disaggregated
from engine.simulator.decode_instance import DecodeInstance
from engine.simulator.errors import SimulatorError
from engine.simulator.instance_split import InstanceSplit
from engine.simulator.oracle import ConstantOracle
from engine.simulator.prefill_instance import PrefillInstance
from engine.simulator.router import ROUTERS
from engine.simulator.settings import SchedulerSettings
from engine.simulator.simulate import simulate
from engine.simulator.traffic import Traffic

quick = hypothesis_settings(max_examples=150, deadline=None)
SECOND = ConstantOracle(seconds=1.0)


def split(prefill: int = 1, decode: int = 1, *, latency_s: float = 0.0, block_s: float = 0.0) -> InstanceSplit:
    return InstanceSplit(prefill_instances=prefill, decode_instances=decode, latency_s=latency_s, block_s=block_s)


def scheduler(apart: InstanceSplit | None = None, **fields: object) -> SchedulerSettings:
    values = {"num_blocks": 1_000, "max_num_batched_tokens": 64, "split": apart, **fields}
    return SchedulerSettings(**values)  # type: ignore[arg-type]


@st.composite
def apart(draw: st.DrawFn) -> SchedulerSettings:
    """Schedulers of up to three instances a side, on links from infinitely fast to slower than any prompt."""
    return replace(
        draw(settings()),
        split=split(
            draw(st.integers(1, 3)),
            draw(st.integers(1, 3)),
            latency_s=draw(st.sampled_from([0.0, 0.01])),
            block_s=draw(st.sampled_from([0.0, 1e-4, 0.05, 2.0])),
        ),
    )


class WatchedPrefill(PrefillInstance):
    """Looks at its own books before every step."""

    def _run_steps(self, steps: int, first_s: float, growth_s: float, ended: list[int]) -> None:
        held = self._cache.num_held_blocks if self._cache else 0
        assert 0 <= held + self._prompt_blocks <= self.settings.num_blocks, "the KV cache is over its capacity"
        if self._cache is not None:
            self._cache.check_integrity()
        super()._run_steps(steps, first_s, growth_s, ended)


class WatchedDecode(DecodeInstance):
    def _run_steps(self, steps: int, first_s: float, growth_s: float, ended: list[int]) -> None:
        assert 0 <= self.used_blocks <= self.settings.num_blocks + 1e-6, "the KV cache is over its capacity"
        assert self.num_running <= self.settings.max_num_seqs
        if self._cache is not None:
            self._cache.check_integrity()
        super()._run_steps(steps, first_s, growth_s, ended)


@pytest.fixture(scope="module")
def watched() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disaggregated, "PrefillInstance", WatchedPrefill)
        patch.setattr(disaggregated, "DecodeInstance", WatchedDecode)
        yield


@pytest.mark.usefixtures("watched")
@quick
@given(load=traffics(), scheduled=apart(), router=st.sampled_from(sorted(ROUTERS)), replicas=st.integers(1, 2))
def test_nothing_is_lost_and_no_cache_overflows(
    load: Traffic, scheduled: SchedulerSettings, router: str, replicas: int
) -> None:
    outcome = simulate(load, scheduled, LinearOracle(), num_replicas=replicas, router=router)
    assert np.isfinite(outcome.end_s).all()
    assert len(outcome.token_times_s) == load.output_tokens.sum()
    for row in range(len(load)):
        times = outcome.token_times_s[outcome.token_offsets[row] : outcome.token_offsets[row + 1]]
        assert times[0] == pytest.approx(outcome.first_token_s[row])
        assert times[-1] == pytest.approx(outcome.end_s[row])
        assert (np.diff(times) >= 0).all()
        assert outcome.start_s[row] < times[0]
    assert scheduled.split is not None
    first_decode = replicas * scheduled.split.prefill_instances
    assert ((outcome.replica >= first_decode) == (load.output_tokens > 1)).all()


@quick
@given(load=traffics(), scheduled=apart())
def test_the_same_seed_gives_the_same_result(load: Traffic, scheduled: SchedulerSettings) -> None:
    first, second = (simulate(load, scheduled, LinearOracle(), num_replicas=2) for _ in range(2))
    assert (first.end_s == second.end_s).all()
    assert (first.token_times_s == second.token_times_s).all()


@quick
@given(load=traffics(), scheduled=apart(), router=st.sampled_from(sorted(ROUTERS)))
def test_answers_of_one_token_are_those_of_servers_that_do_both(
    load: Traffic, scheduled: SchedulerSettings, router: str
) -> None:
    short = replace(load, output_tokens=np.ones_like(load.output_tokens), parent=None, max_concurrency=None)
    assert scheduled.split is not None
    instances = scheduled.split.prefill_instances
    apart = simulate(short, scheduled, LinearOracle(), router=router)
    both = replace(scheduled, split=None, acceptance=None)
    together = simulate(short, both, LinearOracle(), num_replicas=instances, router=router)
    assert apart.end_s.tolist() == together.end_s.tolist()
    assert apart.replica.tolist() == together.replica.tolist()


@pytest.mark.parametrize("inputs", [1, 16, 33, 500])
def test_an_idle_link_delays_by_latency_and_blocks_alone(inputs: int) -> None:
    oracle = LinearOracle(per_context_s=1e-6)
    load = traffic([(0.0, inputs, 20)])
    at_once = simulate(load, scheduler(split()), oracle)
    linked = simulate(load, scheduler(split(latency_s=0.25, block_s=0.125)), oracle)
    delay_s = 0.25 + -(-inputs // 16) * 0.125
    assert linked.token_times_s == pytest.approx(at_once.token_times_s + delay_s)
    # A step more than a server that does both, which had the first token of the prompt's last step.
    together = simulate(load, scheduler(), oracle)
    first_decode_s = oracle.step_s(0, 0, 0, 1, inputs - 1, 0) if inputs > 1 else oracle.step_s(1, 1, 0, 0, 0, 0)
    assert at_once.first_token_s[0] == pytest.approx(together.first_token_s[0] + first_decode_s)


def test_a_link_sends_one_prompt_at_a_time_and_each_instance_has_its_own() -> None:
    load = traffic([(0.0, 16, 2)] * 2)
    one_link = simulate(load, scheduler(split(block_s=10.0)), SECOND)
    assert one_link.first_token_s.tolist() == [1 + 10 + 1, 1 + 20 + 1]
    two_links = simulate(load, scheduler(split(prefill=2, block_s=10.0)), SECOND)
    assert two_links.first_token_s.tolist() == [12, 12]


def test_blocks_stay_until_they_are_sent() -> None:
    # Each prompt takes 4 of 6 blocks, and 8 s on the link: the second is computed when the first has gone.
    load = traffic([(0.0, 64, 2)] * 2)
    outcome = simulate(load, scheduler(split(block_s=2.0), num_blocks=6, enable_prefix_caching=False), SECOND)
    assert outcome.first_token_s.tolist() == [1 + 8 + 1, 9 + 1 + 8 + 1]


def test_a_prompt_in_chunks_waits_for_blocks_with_what_it_has() -> None:
    # The second prompt's first chunk finds room beside the first prompt; its second chunk waits for the link.
    load = traffic([(0.0, 48, 2), (0.0, 64, 2)])
    tight = scheduler(split(block_s=100.0), num_blocks=6, max_num_batched_tokens=64, enable_prefix_caching=False)
    oracle = LinearOracle(per_token_s=0, per_context_s=0)
    outcome = simulate(load, tight, oracle)
    prompts = [(tokens, context) for _, tokens, context, *_ in oracle.asked if tokens]
    assert prompts == [(64, 0), (48, 16)]
    assert outcome.first_token_s[1] == pytest.approx(0.01 + 300 + 0.01 + 400 + 0.01)


def test_a_link_slower_than_the_traffic_comes_to_an_end_in_few_steps() -> None:
    rows = [(0.001 * row, 200, 60) for row in range(40)]
    for caching in (True, False):
        oracle = LinearOracle()
        crowded = scheduler(split(block_s=1e4), num_blocks=20, enable_prefix_caching=caching)
        outcome = simulate(traffic(rows), crowded, oracle)
        assert np.isfinite(outcome.end_s).all()
        assert len(oracle.asked) < 40 * 20


def test_what_a_decode_instance_preempts_it_computes_again() -> None:
    oracle = LinearOracle()
    tight = scheduler(split(), num_blocks=16, enable_prefix_caching=False, max_num_batched_tokens=128)
    outcome = simulate(traffic([(0.0, 100, 60), (0.0, 100, 60)]), tight, oracle)
    assert outcome.num_preemptions.tolist() == [0, 1]
    recomputed = [tokens for _, tokens, *_ in oracle.asked if tokens > 100]
    assert len(recomputed) >= 1
    assert np.isfinite(outcome.end_s).all()


def test_decoding_is_not_held_up_by_prompts() -> None:
    rows = [(0.0, 16, 200), *((0.5 * row, 3_000, 2) for row in range(1, 8))]
    fields = {"max_num_batched_tokens": 4_096, "num_blocks": 2_000}
    oracle = LinearOracle(per_token_s=1e-4)
    gaps = {
        name: np.diff(simulate(traffic(rows), scheduler(one, **fields), oracle).token_times_s[:200]).max()
        for name, one in (("together", None), ("apart", split()))
    }
    assert gaps["together"] > 0.3
    assert gaps["apart"] < 0.02


def test_a_turn_follows_the_end_of_the_answer_before_it() -> None:
    load = traffic([(0.0, 16, 5), (0.0, 16, 1)], parent=np.array([-1, 0]), think_s=np.array([0.0, 2.0]))
    outcome = simulate(load, scheduler(split(latency_s=3.0)), SECOND)
    assert outcome.end_s[0] == 1 + 3 + 5
    assert outcome.start_s[1] == 9 + 2
    assert outcome.end_s[1] == 12


def test_a_closed_loop_keeps_its_concurrency_over_both_sides() -> None:
    load = traffic([(0.0, 16, 4)] * 4, max_concurrency=2)
    outcome = simulate(load, scheduler(split()), SECOND)
    assert outcome.start_s.tolist() == [0, 0, 5, 5]


def test_a_split_of_nothing_or_onto_a_link_that_never_delivers_is_refused() -> None:
    with pytest.raises(SimulatorError, match="at least 1"):
        split(prefill=0)
    with pytest.raises(SimulatorError, match="zero or more seconds"):
        split(block_s=inf)


def test_a_decode_instance_runs_no_further_than_anothers_end_could_bring_it_a_request() -> None:
    rows = [(0.0, 16, 100), (0.0, 16, 3), (0.0, 16, 2), (0.0, 16, 2)]
    outcome = simulate(traffic(rows, max_concurrency=2), scheduler(split(decode=2)), SECOND)
    # Both prompts take one step; the second answer ends after three more, and then one request follows another.
    assert outcome.start_s.tolist() == [0, 0, 4, 7]
    assert outcome.end_s.tolist() == [101, 4, 7, 10]
