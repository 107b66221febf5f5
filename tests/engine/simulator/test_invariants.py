"""What holds for every simulation, whatever the traffic and the scheduler."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from simulator_cases import LinearOracle, settings, traffics

from engine.simulator.router import ROUTERS
from engine.simulator.server import SimulatedServer
from engine.simulator.settings import SchedulerSettings
from engine.simulator.simulate import simulate
from engine.simulator.traffic import Traffic

quick = hypothesis_settings(max_examples=150, deadline=None)


class WatchedServer(SimulatedServer):
    """Looks at its own books before every step."""

    def _run_steps(self, steps: int, first_s: float, growth_s: float, ended: list[int]) -> None:
        assert self.used_blocks <= self.settings.num_blocks + 1e-6, "the KV cache is over its capacity"
        assert self.num_running <= self.settings.max_num_seqs
        lengths = [d.num_computed + d.gained(self._tick) for d in self._decodings.values()]
        assert sum(lengths) <= self._context + 1e-3 <= sum(lengths) + len(lengths) + 1, "tokens are miscounted"
        blocks = sum(-(-(length + 1 + self._drafts) // self.settings.block_size) for length in lengths)
        held = self._cache.num_held_blocks if self._cache else 0
        assert held + self._prompt_blocks + blocks - self._num_shared <= self.settings.num_blocks
        if self._cache is not None:
            self._cache.check_integrity()
        super()._run_steps(steps, first_s, growth_s, ended)
        assert self._waiting or self.num_running or self._prompt_blocks == 0


@quick
@given(traffics(), settings())
def test_no_request_is_lost_and_tokens_are_conserved(load: Traffic, scheduler: SchedulerSettings) -> None:
    outcome = simulate(load, scheduler, LinearOracle())
    assert np.isfinite(outcome.end_s).all()
    assert np.isfinite(outcome.start_s).all()
    assert len(outcome.token_times_s) == load.output_tokens.sum()
    for row in range(len(load)):
        times = outcome.token_times_s[outcome.token_offsets[row] : outcome.token_offsets[row + 1]]
        assert times[0] == pytest.approx(outcome.first_token_s[row])
        assert times[-1] == pytest.approx(outcome.end_s[row])
        assert (np.diff(times) >= 0).all()
        assert outcome.start_s[row] < times[0]


@quick
@given(traffics(), settings())
def test_books_are_right_at_every_step(load: Traffic, scheduler: SchedulerSettings) -> None:
    server = WatchedServer(load, scheduler, LinearOracle())
    for row in range(len(load)):
        server.submit(row, float(row) / 100)
        server.advance((row + 1) / 100)
    server.advance(np.inf)
    assert server.num_unfinished == 0
    assert server.used_blocks == pytest.approx(0, abs=1e-6)


@quick
@given(traffics(), settings())
def test_a_server_with_work_never_idles(load: Traffic, scheduler: SchedulerSettings) -> None:
    outcome = simulate(load, scheduler, LinearOracle())
    # Time with somebody in the system, as a union of intervals, is time in steps.
    order = np.argsort(outcome.start_s)
    busy, until = 0.0, 0.0
    for start, end in zip(outcome.start_s[order], outcome.end_s[order], strict=True):
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    assert outcome.busy_s[0] == pytest.approx(busy, rel=1e-6)


@quick
@given(traffics(), settings())
def test_the_same_seed_gives_the_same_result(load: Traffic, scheduler: SchedulerSettings) -> None:
    first, second = (simulate(load, scheduler, LinearOracle(), num_replicas=2) for _ in range(2))
    assert (first.end_s == second.end_s).all()
    assert (first.token_times_s == second.token_times_s).all()


@pytest.mark.parametrize("router", ROUTERS)
@hypothesis_settings(max_examples=30, deadline=None)
@given(load=traffics(), scheduler=settings())
def test_every_router_serves_everything(router: str, load: Traffic, scheduler: SchedulerSettings) -> None:
    outcome = simulate(load, scheduler, LinearOracle(), num_replicas=3, router=router)
    assert np.isfinite(outcome.end_s).all()
    assert len(outcome.token_times_s) == load.output_tokens.sum()
    assert set(outcome.replica) <= {0, 1, 2}
