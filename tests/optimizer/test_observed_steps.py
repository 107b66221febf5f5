"""Steps seen from outside against the steps that a simulated engine made."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import EngineConfig, dump_engine_config
from engine.simulator.calibrated import Calibrator, MeasuredSteps
from engine.simulator.settings import SchedulerSettings
from engine.simulator.simulate import simulate
from optimizer.cli.simulated_hardware import make_simulated_backend
from optimizer.errors import OptimizerError
from optimizer.observed_steps import are_records, observed_steps, observed_trial
from optimizer.simulated_replay import SimulatedReplay, simulated_replay
from search_spaces.skus import load_skus
from workloads.metadata import Source, WorkloadMetadata
from workloads.records import RequestRecord, write_records
from workloads.request import Request
from workloads.workload import Workload

SETTINGS = SchedulerSettings(
    num_blocks=10_000, max_num_seqs=8, max_num_batched_tokens=4096, enable_prefix_caching=False
)


class Linear:
    """Seconds of a step as a sum of costs."""

    provenance = None

    def step_s(self, *composition: float) -> float:
        _, prefill_tokens, _, decode_seqs, decode_context, _ = composition
        return 0.004 + 2e-5 * prefill_tokens + 2e-4 * decode_seqs + 1e-7 * decode_context


def replay(rate_rps: float, seed: int, num_requests: int = 120) -> SimulatedReplay:
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate_rps, num_requests))
    made = [
        Request(
            request_id=str(row),
            arrival_s=float(arrival),
            input_tokens=int(rng.integers(20, 300)),
            output_tokens=int(rng.integers(2, 60)),
        )
        for row, arrival in enumerate(arrivals)
    ]
    return simulated_replay(Workload.from_requests(made, WorkloadMetadata(name="t", source=Source(format="t"))))


def records(rate_rps: float, seed: int) -> list[RequestRecord]:
    traffic = replay(rate_rps, seed)
    return traffic.records(simulate(traffic.traffic, SETTINGS, Linear()))


@settings(max_examples=8, deadline=None)
@given(rate_rps=st.floats(2, 60), seed=st.integers(0, 100))
def test_every_token_is_in_a_step_and_steps_take_what_the_engine_took(rate_rps: float, seed: int) -> None:
    found = records(rate_rps, seed)
    steps = observed_steps(found)
    assert sum(step.num_new_tokens for step in steps) == sum(record.output_tokens for record in found)
    assert sum(step.num_prefill_tokens for step in steps) == sum(record.input_tokens for record in found)
    assert max(step.num_decode_seqs + step.num_prefill_seqs for step in steps) <= SETTINGS.max_num_seqs
    true = np.array(
        [
            Linear().step_s(0, step.num_prefill_tokens, 0, step.num_decode_seqs, step.num_decode_context_tokens, 0)
            for step in steps
        ]
    )
    seen = np.array([step.duration_s for step in steps])
    assert np.median(np.abs(seen / true - 1)) < 0.01
    assert seen.sum() == pytest.approx(true.sum(), rel=0.05)


def test_what_is_fitted_to_them_predicts_another_load() -> None:
    fitted = Calibrator([MeasuredSteps(records=observed_steps(records(20, 1)), name="seen")]).oracle()
    for rate_rps in (8.0, 40.0):
        traffic = replay(rate_rps, 7).traffic
        said, true = (simulate(traffic, SETTINGS, oracle) for oracle in (fitted, Linear()))
        assert (said.end_s - said.start_s).mean() == pytest.approx((true.end_s - true.start_s).mean(), rel=0.03)


def test_a_trials_records_calibrate_a_simulator(tmp_path: Path) -> None:
    path, found = tmp_path / "records.parquet", records(20, 1)
    write_records(path, found)
    config = EngineConfig(model="m", engine="vllm", enable_prefix_caching=False)
    (tmp_path / "config.yaml").write_text(dump_engine_config(config))
    assert are_records(path)
    assert not are_records(tmp_path / "config.yaml")
    steps, beside = observed_trial(path)
    assert beside == config
    assert list(steps.records) == observed_steps(found)
    assert make_simulated_backend(load_skus(), steps=[path]) is not None
    (tmp_path / "config.yaml").write_text(dump_engine_config(config.model_copy(update={"enable_prefix_caching": True})))
    with pytest.raises(OptimizerError, match=r"speculation or prefix caching. Measure one"):
        observed_trial(path)


def test_tokens_that_come_several_at_a_time_are_refused() -> None:
    pairs = [
        replace(record, token_times_s=tuple(t for t in record.token_times_s[::2] for _ in range(2)))
        for record in records(20, 1)
    ]
    with pytest.raises(OptimizerError, match="several tokens come at a time"):
        observed_steps(pairs)
    with pytest.raises(OptimizerError, match="too few answers"):
        observed_steps([])
