"""The simulator against public measurements: run `python -m tests.benchmarks.silicon_points` (extra `silicon`).

`aiconfigurator-core` ships mean TTFT and TPOT that others measured at fixed concurrency (`systems/silicon_sample.csv`).
Its aggregated vLLM rows of the dense models are simulated as closed loops. The Llama rows are InferenceMAX's of October
2025, whose scripts are public: lengths uniform from 0.8 of the nominal ones, ten requests a slot, all sent at once,
8,192 tokens a step, an fp8 KV cache (the H100's rows fit a bf16 one alone), no prefix caching, async scheduling. Four
figures of what kernel times leave out (`Correction`) are fitted on the H100's Llama rows, never per row, and reported
on the other systems; then, as a user with a few measurements could, on a tenth of each system's rows and reported on
its others. How the Qwen rows (H100) were measured is not known: their protocol is chosen. Prints; gates nothing.
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

from engine.simulator.corrected import Correction
from engine.simulator.correction_fit import UNCORRECTED, MeasuredRun, fit_correction, log_ratios
from engine.simulator.settings import SchedulerSettings
from engine.simulator.silicon import SiliconOracle, SiliconTarget
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
    """How runs were made: lengths uniform from `shortest` of the nominal one, tokens a step, KV of quantized models."""

    shortest: float = 0.8
    max_num_batched_tokens: int = 8192
    kv_cache: str | None = "fp8"
    async_scheduling: bool = True


PUBLISHED = "meta-llama/Llama-3.1-70B"  # the model whose rows come from scripts that are public
CANDIDATES = [
    Protocol(shortest=shortest, max_num_batched_tokens=budget, async_scheduling=False)
    for shortest, budget in product((0.8, 0.9, 1.0), (2048, 4096, 8192))
]

Row = dict[str, str]


def main() -> None:
    rows = read_rows()
    published = [row for row in rows if row["model_path"] == PUBLISHED]
    others = [row for row in rows if row["model_path"] != PUBLISHED]
    correction = fit([row for row in published if row["system"] == FITTED_ON], f"{FITTED_ON} rows")
    chosen = min(CANDIDATES, key=lambda protocol: np.abs(spread(others, protocol, correction)).mean())
    print(f"{others[0]['model_path']}: {chosen}\n{correction}")
    table = new_table("from the H100's rows")
    for key, members in groups(published).items():
        add(table, key, ratios(members, correction))
    add(table, ("all", "fitted", ""), ratios([r for r in published if r["system"] == FITTED_ON], correction))
    held_out = [row for row in published if row["system"] != FITTED_ON]
    add(table, ("all", "held out", ""), ratios(held_out, correction))
    add(table, ("all", "held out, nothing fitted", ""), ratios(held_out, UNCORRECTED))
    add(table, ("Qwen/Qwen3-32B", "h100_sxm, protocol chosen", "both"), ratios(others, correction, chosen))
    everything = np.concatenate([ratios(published, correction), ratios(others, correction, chosen)])
    add(table, ("all", "", ""), everything)
    print(f"aiconfigurator-core {version('aiconfigurator-core')}; medians of |predicted / measured - 1|, and signed")
    console = Console(width=120)
    console.print(table)
    console.print(calibrated_by_tenths(held_out))


def calibrated_by_tenths(rows: list[Row]) -> Table:
    """Each system and weights by a fit on its rows of TP 4 with 4 and 64 clients; its other rows are reported."""
    table = new_table("from a tenth of each system's own rows; the others")
    rest = []
    for key, members in groups(rows).items():
        few = [row for row in members if row["tp_size"].startswith("4") and float(row["batch_size"]) in (4, 64)]
        own = fit(few, f"{len(few)} rows")
        print(key, own)
        rest.append(ratios([row for row in members if row not in few], own))
        add(table, key, rest[-1])
    add(table, ("all", "held out", ""), np.concatenate(rest))
    return table


def read_rows() -> list[Row]:
    path = distribution("aiconfigurator-core").locate_file("aiconfigurator_core/systems/silicon_sample.csv")
    with Path(str(path)).open() as file:
        rows = [row for row in csv.DictReader(file) if row["backend"] == "vllm" and row["mode"] == "agg"]
    return [row for row in rows if row["model_path"] in MODELS]


def groups(rows: list[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """By model, system and weights."""
    found: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        found[row["model_path"], row["system"], row["gemm_quant_mode"] or "bf16"].append(row)
    return dict(sorted(found.items()))


def fit(rows: list[Row], name: str) -> Correction:
    return fit_correction([run(row, published(row)) for row in rows], name)


def ratios(rows: list[Row], correction: Correction, protocol: Protocol | None = None) -> Floats:
    """(rows, 2) log(predicted / measured) of mean TTFT and mean TPOT; the published protocol where none is given."""
    return log_ratios([run(row, protocol or published(row)) for row in rows], correction)


def published(row: Row) -> Protocol:
    return Protocol(kv_cache=None if row["system"] == FITTED_ON else "fp8")


def spread(rows: list[Row], protocol: Protocol, correction: Correction) -> Floats:
    """The log ratios without the factor that they share, at most 1."""
    found = ratios(rows, correction, protocol)
    return np.clip(found - np.median(found[:, 1]), -1, 1)


def run(row: Row, protocol: Protocol) -> MeasuredRun:
    """The closed loop."""
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
        async_scheduling=protocol.async_scheduling,
    )
    target = SiliconTarget(
        model=MODELS[row["model_path"]],
        system=row["system"],
        tensor_parallel_size=split,
        gemm_quant_mode=weights or None,
        kv_cache_quant_mode=kv_cache,
    )
    return MeasuredRun(
        traffic=traffic,
        settings=settings,
        oracle=tables(target),
        mean_ttft_s=float(row["silicon_ttft_ms"]) / 1e3,
        mean_tpot_s=float(row["silicon_tpot_ms"]) / 1e3,
    )


@cache
def tables(target: SiliconTarget) -> SiliconOracle:
    return SiliconOracle(target, max_tokens=MAX_TOKENS, max_seqs=MAX_SEQS, max_context=MAX_CONTEXT)


def new_table(title: str) -> Table:
    return Table("model", "system", "weights", "rows", "TTFT |error|", "TTFT", "TPOT |error|", "TPOT", title=title)


def add(table: Table, key: tuple[str, str, str], logs: Floats) -> None:
    errors = np.expm1(logs)
    absolute, signed = np.median(np.abs(errors), axis=0), np.median(errors, axis=0)
    figures = (f"{absolute[0]:.0%}", f"{signed[0]:+.0%}", f"{absolute[1]:.1%}", f"{signed[1]:+.1%}")
    table.add_row(*key, str(len(errors)), *figures)


if __name__ == "__main__":
    main()
