"""A model folder and a workload for the commands that simulate."""

import json
from pathlib import Path

import numpy as np

from workloads.metadata import Source, WorkloadMetadata
from workloads.parquet import write_workload
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
