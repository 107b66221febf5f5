"""How far the roofline is from silicon tables: run `python -m tests.benchmarks.roofline_fidelity` (extra `silicon`).

Fits the four shares of `Derates` to the H100 and prints the error there and on systems that the fit did not see: three
dense models in bf16, two parallel splits each, decode and mixed steps. Prints figures; gates nothing.
"""

from __future__ import annotations

import json
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize

from engine.config import EngineConfig
from engine.model_shape import ModelShape
from engine.simulator.errors import SimulatorError
from engine.simulator.roofline import Derates, RooflineOracle
from engine.simulator.silicon import SiliconOracle, SiliconTarget
from engine.simulator.traffic import Floats
from search_spaces.skus import Sku, load_skus

MODELS = {"meta-llama/Meta-Llama-3.1-8B": (1, 2), "Qwen/Qwen3-32B": (2, 4), "meta-llama/Meta-Llama-3.1-70B": (2, 4)}
FITTED_ON, HELD_OUT = "h100_sxm", ("a100_80g", "h200", "l40s", "b200")
DECODE = [(0, 0, 0, seqs, seqs * context, 0) for seqs in (1, 4, 16, 64, 128, 256) for context in (256, 1024, 4000)]
PROMPTS = ((1, 256, 0), (1, 1024, 0), (2, 2048, 0), (1, 2048, 2048), (4, 4096, 0))
MIXED = [(*prompt, seqs, seqs * 1000, 0) for prompt in PROMPTS for seqs in (0, 8, 64)]


class Case(NamedTuple):
    config: EngineConfig
    shape: ModelShape
    sku: Sku
    silicon_s: list[float]


def main() -> None:
    cases = [case for name in (FITTED_ON, *HELD_OUT) for case in cases_of(load_skus()[name])]
    fitted_on = [case for case in cases if case.sku.name == FITTED_ON]
    start = np.log([0.6, 0.8, 0.5, 2e-5])
    found = minimize(
        lambda x: np.abs(np.log1p(errors(fitted_on, np.exp(x)))).mean(),
        start,
        method="Nelder-Mead",
        options={"maxfev": 250},
    )
    shares = np.exp(found.x)
    words = [f"{name} {share:.2f}" for name, share in zip(("arithmetic", "bandwidth", "link"), shares, strict=False)]
    print(", ".join([*words, f"layer {shares[3] * 1e6:.0f} us"]))
    table = Table("SKU", "steps", "median |error|", "median error", "p90 |error|")
    for name in (FITTED_ON, *HELD_OUT):
        add_row(table, name, errors([case for case in cases if case.sku.name == name], shares))
    add_row(table, "all but the fitted", errors([case for case in cases if case.sku.name != FITTED_ON], shares))
    Console().print(table)


def cases_of(sku: Sku) -> list[Case]:
    found = []
    for model, splits in MODELS.items():
        file = distribution("aiconfigurator-core").locate_file(
            f"aiconfigurator_core/model_configs/{model.replace('/', '--')}_config.json"
        )
        shape = ModelShape.model_validate(json.loads(Path(str(file)).read_text()))
        for split in splits:
            target = SiliconTarget(
                model=model, system=str(sku.silicon), tensor_parallel_size=split, gemm_quant_mode="bfloat16"
            )
            try:
                oracle = SiliconOracle(target, max_tokens=4200, max_seqs=256, max_context=8192)
            except SimulatorError as error:
                print(error)
                continue
            config = EngineConfig(model=model, tensor_parallel_size=split, dtype="bfloat16")
            found.append(Case(config, shape, sku, [oracle.step_s(*step) for step in (*DECODE, *MIXED)]))
    return found


def errors(cases: list[Case], shares: Floats) -> Floats:
    """Predicted / silicon - 1 of every step."""
    arithmetic, bandwidth, link, layer_s = shares.tolist()
    derates = Derates(arithmetic=arithmetic, bandwidth=bandwidth, link=link, layer_overhead_s=layer_s)
    found: list[float] = []
    for case in cases:
        oracle = RooflineOracle(case.config, case.shape, case.sku, derates)
        steps = zip((*DECODE, *MIXED), case.silicon_s, strict=True)
        found += [oracle.step_s(*step) / silicon_s - 1 for step, silicon_s in steps]
    return np.array(found)


def add_row(table: Table, name: str, error: Floats) -> None:
    figures = (np.median(np.abs(error)), np.median(error), np.quantile(np.abs(error), 0.9))
    table.add_row(name, str(len(error)), *(f"{figure:+.1%}" for figure in figures))


if __name__ == "__main__":
    main()
