"""Traffic and oracles for the simulator's tests."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from engine.simulator.acceptance import AcceptanceProfile
from engine.simulator.oracle import Provenance, Source
from engine.simulator.settings import SchedulerSettings
from engine.simulator.traffic import Traffic


@dataclass(kw_only=True)
class LinearOracle:
    """seconds = base + per_token * tokens + per_context * context; keeps the compositions it was asked for."""

    base_s: float = 0.01
    per_token_s: float = 1e-5
    per_context_s: float = 1e-8
    asked: list[tuple[float, ...]] = field(default_factory=list)
    provenance: Provenance = field(default_factory=lambda: Provenance(source=Source.CONSTANT, detail="linear"))

    def step_s(self, *composition: float) -> float:
        self.asked.append(composition)
        _, tokens, context, decoding, decode_context, drafts = composition
        return (
            self.base_s
            + self.per_token_s * (tokens + decoding + drafts)
            + self.per_context_s * (context + decode_context)
        )


def traffic(rows: list[tuple[float, int, int]], **columns: object) -> Traffic:
    """From (arrival, input tokens, output tokens) rows."""
    arrival, inputs, outputs = zip(*rows, strict=True)
    return Traffic(
        arrival_s=np.array(arrival, float),
        input_tokens=np.array(inputs, np.int64),
        output_tokens=np.array(outputs, np.int64),
        **columns,  # type: ignore[arg-type]
    )


@st.composite
def traffics(draw: st.DrawFn) -> Traffic:
    """Up to 30 requests, with sessions, priorities and shared prefixes or without."""
    number = draw(st.integers(1, 30))
    rows = [(draw(st.floats(0, 2)), draw(st.integers(1, 200)), draw(st.integers(1, 80))) for _ in range(number)]
    columns: dict[str, object] = {}
    if draw(st.booleans()):
        parents = [draw(st.integers(-1, row - 1)) for row in range(number)]
        columns |= {"parent": np.array(parents), "think_s": np.full(number, draw(st.floats(0, 0.5)))}
    if draw(st.booleans()):
        columns["priority"] = np.array(draw(st.lists(st.integers(0, 2), min_size=number, max_size=number)))
    if draw(st.booleans()):
        clients = st.lists(st.integers(0, min(2, number - 1)), min_size=number, max_size=number)
        columns["client"] = np.array(draw(clients))
    if draw(st.booleans()):
        columns["block_hashes"] = [draw(st.lists(st.integers(0, 1), max_size=i // 16)) for _, i, _ in rows]
    if draw(st.booleans()):
        columns["max_concurrency"] = draw(st.integers(1, 8))
    return traffic(rows, **columns)


@st.composite
def settings(draw: st.DrawFn) -> SchedulerSettings:
    """Schedulers that hold every request of `traffics`; the tight ones preempt."""
    acceptance = draw(st.none() | st.lists(st.floats(0, 1), min_size=1, max_size=4).map(tuple))
    max_num_seqs = draw(st.integers(1, 16))
    return SchedulerSettings(
        num_blocks=draw(st.integers(20, 80)),
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=draw(st.integers(max(16, max_num_seqs), 300)),
        enable_prefix_caching=draw(st.booleans()),
        async_scheduling=draw(st.booleans()),
        scheduling_policy=draw(st.sampled_from(["fcfs", "priority", "fair"])),
        acceptance=None if acceptance is None else AcceptanceProfile(per_position=acceptance),
        seed=draw(st.integers(0, 3)),
    )
