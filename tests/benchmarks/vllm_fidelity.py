"""How true the simulator is to vLLM's CPU build, calibrated on a few replays that were seen from outside.

    python -m tests.benchmarks.vllm_fidelity --vllm-python PATH --work DIR --measure   # repeat until nothing is missing
    python -m tests.benchmarks.vllm_fidelity --work DIR [--json FILE]

Configs without prefix caching and speculation, so that steps can be told by their tokens. Each: a saturated replay,
then the demo's traffic at shares of its capacity. The simulator is calibrated on the saturated replay and one load of
the first config (`optimizer/observed_steps.py`: vLLM keeps no step log) and predicts every other cell. Nothing is tuned
by hand.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from engine.config import EngineConfig
from engine.model_shape import load_model_shape
from engine.simulator.calibrated import Calibrator, MeasuredSteps
from engine.simulator.settings import SchedulerSettings
from engine.vllm_server.backend import VllmBackend
from optimizer.client import Client
from optimizer.environment import describe_environment
from optimizer.fidelity import TrialWindow, choose_window
from optimizer.measurement import warm_up
from optimizer.observed_steps import observed_steps
from optimizer.placement import plan_placement
from optimizer.predicted_capacity import predict, saturated_tokens_per_second
from optimizer.request_overhead import fitted_overhead
from optimizer.saturation import steady_span, token_rate
from optimizer.simulated_replay import simulated_replay
from tests.benchmarks.fidelity_report import METRICS
from workloads.metrics import summarize
from workloads.parquet import read_workload
from workloads.records import read_records, write_records

LOADS: Final = (0.4, 0.6, 0.8)  # shares of each config's capacity
CONFIGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "16 sequences": {"max_num_seqs": 16},
    "8 sequences": {"max_num_seqs": 8},
    "16 sequences again": {"max_num_seqs": 16},  # another launch, whose difference is the machine's
    "4 sequences": {"max_num_seqs": 4},
}
CALIBRATING: Final = ("16 sequences", 0.6)
PROBE: Final = "probe"
DRAWS: Final = 2000


def main() -> None:
    arguments = parse_arguments()
    window = choose_window(read_workload(arguments.workload), arguments.window_s, num_warmup=8)
    if arguments.measure:
        print(f"{measure(arguments, window)} cells are missing")
        return
    result = compared(arguments, window)
    report(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the measured cells")
    parser.add_argument("--measure", action="store_true", help="measure what is missing there, and stop")
    parser.add_argument("--vllm-python", type=Path)
    parser.add_argument("--seconds", type=float, default=280, help="start nothing that would not end within")
    parser.add_argument("--window-s", type=float, default=6.0, help="of recorded traffic a cell")
    parser.add_argument("--model", type=Path, default=Path("workloads/demo/models/target"))
    parser.add_argument("--workload", type=Path, default=Path("workloads/demo/workload.parquet"))
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def config_named(name: str, model: Path) -> EngineConfig:
    values = {"model": str(model), "engine": "vllm", "max_model_len": 1024, "enable_prefix_caching": False}
    return EngineConfig.model_validate({**values, **CONFIGS[name]})


def path_of(work: Path, name: str, cell: str | float) -> Path:
    return work / name.replace(" ", "-") / f"{cell if cell == PROBE else f'{cell:.0%}'}.parquet"


def measure(arguments: argparse.Namespace, window: TrialWindow) -> int:
    """Measure what is missing until `seconds` are spent; how many cells are still missing."""
    arguments.work.mkdir(parents=True, exist_ok=True)
    (arguments.work / "environment.json").write_text(json.dumps(describe_environment()))
    placement, deadline = plan_placement(), time.monotonic() + arguments.seconds
    cpus = None if placement.engine_cores is None else frozenset(placement.engine_cores)
    backend = VllmBackend(python=arguments.vllm_python, cpus=cpus)
    for name in CONFIGS:
        missing = [cell for cell in (PROBE, *LOADS) if not path_of(arguments.work, name, cell).exists()]
        if not missing or time.monotonic() + 90 > deadline:
            continue
        log = arguments.work / f"{name.replace(' ', '-')}.log"
        with backend.launch(config_named(name, arguments.model), log_path=log) as server:
            client = Client(server=server, placement=placement)
            for cell in missing:
                if time.monotonic() + 60 < deadline:
                    measure_cell(client, arguments.work, name, cell, window)
    return sum(not path_of(arguments.work, name, cell).exists() for name in CONFIGS for cell in (PROBE, *LOADS))


def measure_cell(client: Client, work: Path, name: str, cell: str | float, window: TrialWindow) -> None:
    path, begin = path_of(work, name, cell), time.monotonic()
    path.parent.mkdir(exist_ok=True)
    warm_up(client, window)
    if cell == PROBE:
        result = client.send(window.window, mode="concurrency", concurrency=CONFIGS[name]["max_num_seqs"])
    else:
        result = client.send(window.window, speedup=speed_of(work, name, float(cell), window))
    path.with_suffix(".json").write_text(json.dumps({"void": result.void_reason, "duration_s": result.duration_s}))
    write_records(path, result.records)
    print(f"{name}, {cell}: {time.monotonic() - begin:.1f} s {result.void_reason}", flush=True)


def capacity(work: Path, name: str) -> float:
    """Input plus output tokens a second."""
    path = path_of(work, name, PROBE)
    records, end_s = read_records(path), json.loads(path.with_suffix(".json").read_text())["duration_s"]
    rate = token_rate(records, steady_span(records, cut=False, end_s=end_s))
    assert rate is not None, "the probe has tokens"
    return rate.value


def speed_of(work: Path, name: str, load: float, window: TrialWindow) -> float:
    return load * capacity(work, name) / window.tokens_per_second


def compared(arguments: argparse.Namespace, window: TrialWindow) -> dict[str, Any]:
    """Every cell of the configs that were measured to their end, and as predicted."""
    work = arguments.work
    name, load = CALIBRATING
    steps = [s for cell in (PROBE, load) for s in observed_steps(read_records(path_of(work, name, cell)))]
    oracle = Calibrator([MeasuredSteps(records=steps, name=f"{name}, saturated and at {load:.0%}")]).oracle()
    replay = simulated_replay(window.window, closed_loop=True)
    speed = speed_of(work, name, load, window)
    records = read_records(path_of(work, name, load))
    overhead = fitted_overhead(replay, settings_of(name, arguments.model), oracle, records, speed=speed)
    cells, capacities = [], []
    whole = [name for name in CONFIGS if all(path_of(work, name, cell).exists() for cell in (PROBE, *LOADS))]
    for other in whole:
        settings = replace(settings_of(other, arguments.model), **overhead._asdict())
        said = saturated_tokens_per_second(replay.traffic, settings, oracle)
        capacities.append({"config": other, "measured": capacity(work, other), "predicted": said})
        for share in LOADS:
            measured = summarize(read_records(path_of(work, other, share)))
            predicted = predict(replay, settings, oracle, speed=speed_of(work, other, share, window))
            cells.append({
                "config": other, "load": share, "calibrating": (other, share) == CALIBRATING,
                "void": json.loads(path_of(work, other, share).with_suffix(".json").read_text())["void"],
                "measured": {metric: measured.value(metric) for metric in METRICS},
                "predicted": {metric: predicted.value(metric) for metric in METRICS},
            })  # fmt: skip
    return {
        "environment": json.loads((work / "environment.json").read_text()), "requests": len(replay.requests),
        "step_times": oracle.provenance.sentence(), "overhead": overhead._asdict(),
        "capacities": capacities, "cells": cells,
    }  # fmt: skip


def settings_of(name: str, model: Path) -> SchedulerSettings:
    config, shape = config_named(name, model), load_model_shape(model)
    longest = config.max_model_len or shape.max_position_embeddings
    return SchedulerSettings(
        num_blocks=-(-longest // config.block_size) * config.max_num_seqs,  # never the limit here
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        enable_prefix_caching=False,
    )


def report(result: Mapping[str, Any]) -> None:
    print(", ".join(f"{key} {value}" for key, value in result["environment"].items()))
    print(f"{result['requests']} requests a cell; {result['step_times']}")
    for entry in result["capacities"]:
        off = entry["predicted"] / entry["measured"] - 1
        told = f"capacity {entry['measured']:.0f} tokens/s, predicted {entry['predicted']:.0f} ({off:+.0%})"
        print(f"{entry['config']}: {told}")
    for cell in result["cells"]:
        off = {m: cell["predicted"][m] / cell["measured"][m] - 1 for m in METRICS}
        told = ", ".join(f"{metric} {cell['measured'][metric]:.4g} ({value:+.0%})" for metric, value in off.items())
        note = " (calibrating)" if cell["calibrating"] else ""
        print(f"{cell['config']} at {cell['load']:.0%}{note}{' VOID' if cell['void'] else ''}: {told}")
    kept = [cell for cell in result["cells"] if not cell["calibrating"] and not cell["void"]]
    for metric in METRICS:
        off = np.array([abs(cell["predicted"][metric] / cell["measured"][metric] - 1) for cell in kept])
        drawn = np.median(np.random.default_rng(0).choice(off, (DRAWS, len(off))), axis=1)
        low, high = np.quantile(drawn, (0.025, 0.975))
        print(f"median absolute error of {metric}: {np.median(off):.1%} [{low:.1%}, {high:.1%}], n = {len(off)}")


if __name__ == "__main__":
    main()
