"""Coarse arrivals are spread within their step."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workload_cases import chat

from workloads.arrivals import spread_within_steps


@given(st.lists(st.none() | st.integers(0, 20), max_size=60), st.sampled_from((0.5, 1.0, 3.0)))
def test_arrivals_stay_in_their_step_and_in_order(steps: list[int | None], resolution: float) -> None:
    recorded = [chat(str(i), None if step is None else step * resolution) for i, step in enumerate(steps)]
    spread = spread_within_steps(recorded, resolution)
    assert [request.request_id for request in spread] == [request.request_id for request in recorded]
    last: dict[int, float] = {}
    for step, request in zip(steps, spread, strict=True):
        if step is None:
            assert request.arrival_s is None
            continue
        assert request.arrival_s is not None
        assert step * resolution <= request.arrival_s < (step + 1) * resolution
        assert request.arrival_s >= last.get(step, 0.0)
        last[step] = request.arrival_s


def test_a_full_second_becomes_arrivals_at_random() -> None:
    spread = spread_within_steps([chat(str(i), float(i // 100)) for i in range(1000)], 1.0)
    gaps = [float(b.arrival_s or 0) - float(a.arrival_s or 0) for a, b in pairwise(spread)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert variance**0.5 / mean == pytest.approx(1.0, abs=0.1)  # exponential gaps


@pytest.mark.parametrize("resolution", [None, 1e-7, 0.001])
def test_fine_stamps_are_replayed_as_they_are(resolution: float | None) -> None:
    recorded = [chat("a", 0.0), chat("b", 0.0)]
    assert spread_within_steps(recorded, resolution) == recorded
