"""How fast the simulator is (performance.md, P4): run `python -m tests.benchmarks.simulator_speed`.

1,000 requests with log-normal lengths and Poisson arrivals on one server, step times from a roofline; the best and the
median of several runs in one process on one core, and how many times faster than real time that is. Prints figures;
gates nothing.
"""

from __future__ import annotations

import platform
import statistics
import time
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from engine.config import EngineConfig
from engine.model_shape import ModelShape
from engine.simulator.acceptance import AcceptanceProfile
from engine.simulator.outcome import Outcome
from engine.simulator.roofline import RooflineOracle
from engine.simulator.settings import SchedulerSettings
from engine.simulator.simulate import simulate
from engine.simulator.traffic import Traffic
from search_spaces.skus import load_skus

NUM_REQUESTS = 1000
REPEATS = 15
SHAPE = ModelShape.model_validate(
    {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "dtype": "bfloat16",
    }
)


class Case(NamedTuple):
    name: str
    rate_rps: float
    num_blocks: int = 20_000
    prefixes: bool = False
    caching: bool = True
    acceptance: AcceptanceProfile | None = None


CASES = (
    Case("light load", 2),
    Case("half load", 10),
    Case("near saturation", 25),
    Case("overload", 80),
    Case("near saturation, no prefix caching", 25, caching=False),
    Case("near saturation, shared prefixes", 25, prefixes=True),
    Case("near saturation, speculation", 25, acceptance=AcceptanceProfile(per_position=(0.7, 0.6, 0.5))),
    Case("near saturation, KV cache full", 25, num_blocks=3_000),
)


def main() -> None:
    oracle = RooflineOracle(EngineConfig(model="llama-8b"), SHAPE, load_skus()["h100_sxm"])
    table = Table("case", "best ms", "median ms", "x real time", "busy", "preemptions", "p95 TTFT s")
    for case in CASES:
        load, settings = traffic(case), scheduler(case)
        seconds = []
        for _ in range(REPEATS):
            begin = time.perf_counter()
            outcome = simulate(load, settings, oracle)
            seconds.append(time.perf_counter() - begin)
        table.add_row(case.name, *figures(outcome, seconds))
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {NUM_REQUESTS} requests")
    Console(width=120).print(table)


def figures(outcome: Outcome, seconds: list[float]) -> list[str]:
    simulated_s = float(outcome.end_s.max() - outcome.start_s.min())
    middle = statistics.median(seconds)
    return [
        f"{1e3 * min(seconds):.1f}",
        f"{1e3 * middle:.1f}",
        f"{simulated_s / middle:,.0f}",
        f"{outcome.utilisation[0]:.0%}",
        str(outcome.num_preemptions.sum()),
        f"{np.quantile(outcome.ttft_s, 0.95):.2f}",
    ]


def traffic(case: Case) -> Traffic:
    rng = np.random.default_rng(0)
    inputs = rng.lognormal(6.5, 0.8, NUM_REQUESTS).astype(np.int64) + 1
    hashes = None
    if case.prefixes:  # one of twenty system prompts of 25 blocks, then blocks of its own
        hashes = [
            [int(start) * 1000 + block if block < 25 else -row * 10_000 - block for block in range(length // 16)]
            for row, (start, length) in enumerate(zip(rng.integers(0, 20, NUM_REQUESTS), inputs, strict=True))
        ]
    return Traffic(
        arrival_s=np.cumsum(rng.exponential(1 / case.rate_rps, NUM_REQUESTS)),
        input_tokens=inputs,
        output_tokens=rng.lognormal(5.3, 0.7, NUM_REQUESTS).astype(np.int64) + 1,
        block_hashes=hashes,
    )


def scheduler(case: Case) -> SchedulerSettings:
    return SchedulerSettings(
        num_blocks=case.num_blocks,
        max_num_seqs=256,
        max_num_batched_tokens=2048,
        enable_prefix_caching=case.caching,
        acceptance=case.acceptance,
    )


if __name__ == "__main__":
    main()
