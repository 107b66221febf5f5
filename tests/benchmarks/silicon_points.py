"""The simulator against public measurements: run `python -m tests.benchmarks.silicon_points` (extra `silicon`).

`aiconfigurator-core` ships mean TTFT and TPOT that others measured at fixed concurrency (`systems/silicon_sample.csv`).
Its aggregated vLLM rows of the dense models are simulated as closed loops. The rows do not say how long the runs were,
how much lengths varied, how large a step was or how the KV cache was held: that, and three figures of what kernel times
leave out (host time of a step and of a request), are fitted on the H100 rows alone (once per source of rows, never per
row) and reported on the others. Prints figures; gates nothing.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution, version
from itertools import product
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize

from engine.simulator.corrected import CorrectedOracle, Correction
from engine.simulator.settings import SchedulerSettings
from engine.simulator.silicon import SiliconOracle, SiliconTarget
from engine.simulator.simulate import simulate
from engine.simulator.traffic import Floats, Traffic

MODELS = {"meta-llama/Llama-3.1-70B": "meta-llama/Meta-Llama-3.1-70B", "Qwen/Qwen3-32B": "Qwen/Qwen3-32B"}
PARAMETERS = {"meta-llama/Llama-3.1-70B": 70.55e9, "Qwen/Qwen3-32B": 32.76e9}
KV_NUMBERS = {"meta-llama/Llama-3.1-70B": 80 * 2 * 1024, "Qwen/Qwen3-32B": 64 * 2 * 1024}  # of one token
WEIGHT_BYTES = {"": 2.0, "fp8": 1.03, "nvfp4": 0.58}  # of a parameter, scales and unquantized parts included
MEMORY_GIB = {"h100_sxm": 79.6, "h200_sxm": 140.0, "b200_sxm": 180.0}
RESERVE_BYTES = 4 * 2**30
FITTED_ON = "h100_sxm"
REQUESTS_PER_SLOT = 10
MAX_TOKENS, MAX_SEQS, MAX_CONTEXT = 8192 + 256, 256, 9300


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How the runs of one source were made: lengths uniform from `shortest` of the nominal one, tokens a step, KV."""

    shortest: float = 0.8
    max_num_batched_tokens: int = 8192
    kv_cache: str | None = None


NOTHING = Correction()


@dataclass(frozen=True, kw_only=True)
class Leftout:
    """What kernel times leave out."""

    correction: Correction = NOTHING
    request_overhead_s: float = 0.0


CANDIDATES = [
    Protocol(shortest=shortest, max_num_batched_tokens=budget, kv_cache=kv)
    for shortest, budget, kv in product((0.8, 0.9, 1.0), (2048, 4096, 8192), (None, "fp8"))
]

Row = dict[str, str]


def main() -> None:
    rows = read_rows()
    fitted_on = [row for row in rows if row["system"] == FITTED_ON]
    protocols = {source: choose_protocol(fitted_on, source) for source in sorted({source_of(row) for row in rows})}
    leftout = fit(fitted_on, protocols)
    for source, protocol in protocols.items():
        print(source, protocol)
    print(leftout)
    table = Table("model", "system", "weights", "rows", "TTFT |error|", "TTFT", "TPOT |error|", "TPOT")
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["model_path"], row["system"], row["gemm_quant_mode"] or "bf16"].append(row)
    for key, members in sorted(groups.items()):
        add(table, key, members, protocols, leftout)
    add(table, ("all", "fitted", ""), fitted_on, protocols, leftout)
    add(table, ("all", "held out", ""), [r for r in rows if r["system"] != FITTED_ON], protocols, leftout)
    add(table, ("all", "", ""), rows, protocols, leftout)
    add(table, ("all, nothing fitted", "", ""), rows, dict.fromkeys(protocols, Protocol()), Leftout())
    print(f"aiconfigurator-core {version('aiconfigurator-core')}; medians of |predicted / measured - 1|, and signed")
    Console(width=120).print(table)


def read_rows() -> list[Row]:
    path = distribution("aiconfigurator-core").locate_file("aiconfigurator_core/systems/silicon_sample.csv")
    with Path(str(path)).open() as file:
        rows = [row for row in csv.DictReader(file) if row["backend"] == "vllm" and row["mode"] == "agg"]
    return [row for row in rows if row["model_path"] in MODELS]


def source_of(row: Row) -> str:
    """Rows of one model come from one harness."""
    return row["model_path"]


def choose_protocol(rows: list[Row], source: str) -> Protocol:
    """The protocol under which all errors come nearest to being one factor."""
    own = [row for row in rows if source_of(row) == source]

    def spread(protocol: Protocol) -> float:
        ratios = np.array([log_ratios(row, protocol, Leftout()) for row in own])
        return float(np.clip(np.abs(ratios - np.median(ratios[:, 1])), 0, 1).mean())

    return min(CANDIDATES, key=spread)


def fit(rows: list[Row], protocols: dict[str, Protocol]) -> Leftout:
    """Least mean |log ratio| of TTFT and TPOT, each row's counted as 1 at most."""

    def leftout(x: Floats) -> Leftout:
        decode_s, mixed_s, request_s = (np.abs(x) / 1e3).tolist()
        correction = Correction(
            decode_overhead_s=decode_s, mixed_overhead_s=mixed_s, fitted_on=f"{len(rows)} {FITTED_ON} rows"
        )
        return Leftout(correction=correction, request_overhead_s=request_s)

    def loss(x: Floats) -> float:
        return float(np.mean([loss_of(row, protocols[source_of(row)], leftout(x)) for row in rows]))

    start = [0.5, 3.0, 10.0]  # milliseconds
    return leftout(minimize(loss, start, method="Nelder-Mead", options={"maxfev": 45}).x)


def loss_of(row: Row, protocol: Protocol, leftout: Leftout) -> float:
    return sum(min(1.0, abs(value)) for value in log_ratios(row, protocol, leftout))


def log_ratios(row: Row, protocol: Protocol, leftout: Leftout) -> tuple[float, float]:
    """log(predicted / measured) of mean TTFT and mean TPOT."""
    ttft_s, tpot_s = predict(row, protocol, leftout)
    return (
        float(np.log(1e3 * ttft_s / float(row["silicon_ttft_ms"]))),
        float(np.log(1e3 * tpot_s / float(row["silicon_tpot_ms"]))),
    )


def predict(row: Row, protocol: Protocol, leftout: Leftout) -> tuple[float, float]:
    """Mean TTFT and TPOT of the closed loop."""
    split, weights = int(row["tp_size"]), row["gemm_quant_mode"]
    kv_cache = protocol.kv_cache if weights else None
    memory = 0.9 * MEMORY_GIB[row["system"]] * 2**30 - RESERVE_BYTES
    memory -= PARAMETERS[row["model_path"]] * WEIGHT_BYTES[weights] / split
    block = 16 * KV_NUMBERS[row["model_path"]] / split * (1 if kv_cache else 2)
    concurrency = int(float(row["batch_size"]))
    longest = int(row["isl"]) + int(row["osl"])
    rng = np.random.default_rng(0)
    lengths = [
        rng.integers(int(protocol.shortest * int(row[name])), int(row[name]) + 1, concurrency * REQUESTS_PER_SLOT)
        for name in ("isl", "osl")
    ]
    traffic = Traffic(
        arrival_s=np.zeros(len(lengths[0])),
        input_tokens=lengths[0],
        output_tokens=lengths[1],
        max_concurrency=concurrency,
    )
    settings = SchedulerSettings(
        num_blocks=max(int(memory / block), longest // 16 + 2),
        max_num_seqs=MAX_SEQS,
        max_num_batched_tokens=protocol.max_num_batched_tokens,
        enable_prefix_caching=False,
        request_overhead_s=leftout.request_overhead_s,
    )
    target = SiliconTarget(
        model=MODELS[row["model_path"]],
        system=row["system"],
        tensor_parallel_size=split,
        gemm_quant_mode=weights or None,
        kv_cache_quant_mode=kv_cache,
    )
    outcome = simulate(traffic, settings, CorrectedOracle(tables(target), leftout.correction))
    return float(outcome.ttft_s.mean()), float(np.nanmean(outcome.tpot_s))


@cache
def tables(target: SiliconTarget) -> SiliconOracle:
    return SiliconOracle(target, max_tokens=MAX_TOKENS, max_seqs=MAX_SEQS, max_context=MAX_CONTEXT)


def add(
    table: Table, key: tuple[str, str, str], rows: list[Row], protocols: dict[str, Protocol], leftout: Leftout
) -> None:
    errors = np.expm1([log_ratios(row, protocols[source_of(row)], leftout) for row in rows])
    absolute, signed = np.median(np.abs(errors), axis=0), np.median(errors, axis=0)
    figures = (f"{absolute[0]:.0%}", f"{signed[0]:+.0%}", f"{absolute[1]:.1%}", f"{signed[1]:+.1%}")
    table.add_row(*key, str(len(rows)), *figures)


if __name__ == "__main__":
    main()
