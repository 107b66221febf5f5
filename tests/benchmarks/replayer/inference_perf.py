"""inference-perf as a `LoadGenerator`: one worker process, as it has one core.

Does not know the truth. Its clock starts when a request is sent. Its "constant" load has exponential gaps that it does
not tell. Its prompts are the fixed ones of its own mock data: of random ones it drops those that it cannot make exactly
as long as asked for with a small tokenizer.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import yaml

from tests.benchmarks.replayer.load_generator import MODEL, Job, Said, ToolError, beside, run


def inference_perf(job: Job) -> Said:
    """See the module."""
    config = {
        "api": {"type": "completion", "streaming": True},
        "server": {"type": "vllm", "model_name": MODEL, "base_url": job.base_url, "ignore_eos": True},
        "tokenizer": {"pretrained_model_name_or_path": str(job.tokenizer)},
        "data": {"type": "mock"},
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
    if any(entry["error"] for entry in entries) or len(entries) < job.count:
        raise ToolError(f"{len(entries)} of {job.count} requests were sent, or some failed")
    metrics = [entry["computed_metrics"] for entry in entries]
    ttft = np.array([metric["time_to_first_token"] for metric in metrics], dtype=np.float64)
    e2el = np.array([metric["request_latency"] for metric in metrics], dtype=np.float64)
    return Said(ttft, e2el, is_steady=False)
