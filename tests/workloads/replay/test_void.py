"""A late client voids its replay; a late loop is noticed."""

from __future__ import annotations

import asyncio
import time

import pytest
from replay_cases import lagging

from workloads.replay.loop_lag import LoopLag
from workloads.replay.result import void_reason


@pytest.mark.parametrize(
    ("count", "num_late", "percentile"), [(500, 5, None), (500, 8, "p99"), (100, 3, None), (100, 7, "p95")]
)
def test_few_requests_are_judged_by_a_lower_percentile(count: int, num_late: int, percentile: str | None) -> None:
    reason = void_reason(lagging(count, num_late=num_late))
    assert (reason is None) if percentile is None else (reason is not None and f"{percentile} schedule lag" in reason)


def test_a_late_client_voids_the_run() -> None:
    # a lag of 2 ms against 5% of a 10 ms median TTFT = 0.5 ms
    late = lagging(10, num_late=10)
    reason = void_reason(late)
    assert reason is not None
    assert "2.00 ms is more than 5% of the median TTFT, 10.00 ms" in reason


def test_a_client_whose_loop_is_late_voids_the_run() -> None:
    # 2 ms against 5% of a 10 ms median TTFT = 0.5 ms; one beat of a thousand does not count
    punctual = lagging(10, num_late=0)
    assert void_reason(punctual, [0.0001] * 999 + [0.002]) is None
    reason = void_reason(punctual, [0.0001] * 900 + [0.002] * 100)
    assert reason is not None
    assert "p99 event loop lag 2.00 ms" in reason


def test_a_loop_that_is_held_up_is_noticed() -> None:
    async def run() -> list[float]:
        with LoopLag() as heart:
            await asyncio.sleep(0.05)
            time.sleep(0.1)
            await asyncio.sleep(0.05)
        return heart.lags_s

    lags = asyncio.run(run())
    assert sum(lag >= 0.02 for lag in lags) >= 4  # beats every 20 ms, and 100 ms without one
    assert all(lag >= 0 for lag in lags)
