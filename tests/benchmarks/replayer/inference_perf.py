"""inference-perf as a `LoadGenerator`: one worker process, as it has one core.

Does not know the truth. Its clock starts when a request is sent.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import yaml

from tests.benchmarks.replayer.load_generator import MODEL, PROMPT_TOKENS, Job, Said, ToolError, beside, run
from tests.benchmarks.replayer.mock_server import NUM_CHUNKS


def inference_perf(job: Job) -> Said:
    """See the module."""
    fixed = {"type": "fixed", "std_dev": 0, "total_count": job.count}
    config = {
        "api": {"type": "completion", "streaming": True},
        "server": {"type": "vllm", "model_name": MODEL, "base_url": job.base_url, "ignore_eos": True},
        "tokenizer": {"pretrained_model_name_or_path": str(job.tokenizer)},
        "data": {
            "type": "random",
            "input_distribution": fixed | dict.fromkeys(("min", "max", "mean"), PROMPT_TOKENS),
            "output_distribution": fixed | dict.fromkeys(("min", "max", "mean"), NUM_CHUNKS),
        },
        "load": {
            "type": "constant",
            "stages": [{"rate": job.rate, "duration": round(job.count / job.rate)}],
            "num_workers": 1,
            "worker_max_concurrency": 10_000,
        },
        "report": {
            "request_lifecycle": {
                "per_request": True,
                "per_request_fields": {"computed_metrics": True, "request": False, "response": False},
            },
            "prometheus": None,
        },
        "storage": {"local_storage": {"path": str(job.folder / "reports")}},
    }
    file = job.folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    run([beside(job.python, "inference-perf"), "-c", str(file)], job)
    found = next((job.folder / "reports").rglob("per_request_lifecycle_metrics.json"), None)
    if found is None:
        raise ToolError("no report of requests")
    entries: list[dict[str, Any]] = sorted(json.loads(found.read_text()), key=lambda entry: entry["start_time"])
    if any(entry["error"] for entry in entries) or not entries:
        raise ToolError("requests failed")
    metrics = [entry["computed_metrics"] for entry in entries]
    ttft = np.array([metric["time_to_first_token"] for metric in metrics], dtype=np.float64)
    return Said(ttft, np.array([metric["request_latency"] for metric in metrics], dtype=np.float64))
