"""A model folder and a workload for the commands that simulate."""

import json
from pathlib import Path

import numpy as np

from engine.config import EngineConfig
from engine.simulated_backend import SimulatedBackend
from engine.simulator.corrected import Correction
from engine.simulator.simulate import simulate
from optimizer.results import TrialResult, TrialState
from optimizer.simulated_replay import simulated_replay
from search_spaces.skus import load_skus
from workloads.metadata import Source, WorkloadMetadata
from workloads.parquet import read_workload, write_workload
from workloads.records import write_records
from workloads.request import Request

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}


def write_model(folder: Path, **changes: object) -> Path:
    """A folder with nothing but a config.json."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(LLAMA_8B | changes))
    return folder


def write_traffic(path: Path, *, num_requests: int = 150, rate_rps: float = 10.0) -> Path:
    """Poisson arrivals, most answers short, some long."""
    rng = np.random.default_rng(1)
    arrivals = np.cumsum(rng.exponential(1 / rate_rps, num_requests))
    requests = [
        Request(
            request_id=f"r{row}",
            arrival_s=float(arrival),
            input_tokens=int(rng.integers(100, 2000)),
            output_tokens=int(rng.integers(20, 200)),
            status="ok",
        )
        for row, arrival in enumerate(arrivals)
    ]
    write_workload(path, requests, WorkloadMetadata(name="traffic", source=Source(format="test")))
    return path


def write_study(
    folder: Path, traffic: Path, configs: list[EngineConfig], *, sku: str, truth: Correction, **fields: object
) -> Path:
    """A measured study's trials, whose times are those of a simulator with a correction that the tested one must find.

    Args:
        fields: of every trial's result in place of what it would be.
    """
    backend = SimulatedBackend(load_skus(), corrections={sku: truth})
    replay = simulated_replay(read_workload(traffic))
    for number, config in enumerate(configs):
        hardware = {"sku": sku, "count": config.tensor_parallel_size}
        there = EngineConfig.model_validate(config.model_dump() | {"engine": "simulated", "hardware": hardware})
        serving = backend.serving(there)
        outcome = simulate(replay.traffic, serving.settings, serving.oracle)
        metrics = {
            "mean_ttft_ms": 1e3 * float(outcome.ttft_s.mean()),
            "mean_tpot_ms": 1e3 * float(np.nanmean(outcome.tpot_s)),
        }
        trial = folder / "trials" / f"{number:04}"
        trial.mkdir(parents=True)
        result = TrialResult(number=number, config=config, state=TrialState.COMPLETE, metrics=metrics)
        (trial / "result.json").write_text(result.model_copy(update=fields).model_dump_json())
        write_records(trial / "records.parquet", replay.records(outcome))
    return folder
