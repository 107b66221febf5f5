"""One sequence at a time and steps of constant length make the simulator a textbook queue."""

import numpy as np
import pytest
from simulator_cases import traffic

from engine.simulator.oracle import ConstantOracle
from engine.simulator.settings import SchedulerSettings
from engine.simulator.simulate import simulate

NUM = 40_000
ONE_AT_A_TIME = SchedulerSettings(num_blocks=1 << 20, max_num_seqs=1, max_num_batched_tokens=64)
STEP_S = 0.001


def mean_wait_s(tokens: np.ndarray, utilisation: float, rng: np.random.Generator) -> float:
    """Waiting time (in the queue, not in service) with Poisson arrivals."""
    service_s = tokens * STEP_S
    arrivals = np.cumsum(rng.exponential(service_s.mean() / utilisation, NUM))
    rows = [(float(a), 1, int(n)) for a, n in zip(arrivals, tokens, strict=True)]
    outcome = simulate(traffic(rows), ONE_AT_A_TIME, ConstantOracle(seconds=STEP_S))
    return float((outcome.e2el_s - service_s).mean())


@pytest.mark.parametrize("utilisation", [0.3, 0.7])
def test_constant_service_is_m_d_1(utilisation: float) -> None:
    wait = mean_wait_s(np.full(NUM, 50), utilisation, np.random.default_rng(1))
    # W = ρ s / (2 (1 - ρ))
    assert wait == pytest.approx(utilisation * 0.05 / (2 * (1 - utilisation)), rel=0.06)


@pytest.mark.parametrize("utilisation", [0.3, 0.7])
def test_exponential_service_is_m_m_1(utilisation: float) -> None:
    rng = np.random.default_rng(2)
    tokens = np.ceil(rng.exponential(200, NUM)).astype(int)
    wait = mean_wait_s(tokens, utilisation, rng)
    # W = ρ s / (1 - ρ), s the mean service time
    assert wait == pytest.approx(utilisation * tokens.mean() * STEP_S / (1 - utilisation), rel=0.1)
