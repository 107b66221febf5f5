"""AIPerf as a `LoadGenerator`.

Does not know the truth. Its clock starts when a request is sent.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tests.benchmarks.replayer.load_generator import MODEL, PROMPT_TOKENS, Job, Said, ToolError, beside, run
from tests.benchmarks.replayer.mock_server import NUM_CHUNKS


def aiperf(job: Job) -> Said:
    """See the module."""
    command = [beside(job.python, "aiperf"), "profile", "--model", MODEL, "--url", job.base_url, "--streaming"]
    command += ["--endpoint-type", "completions", "--tokenizer", str(job.tokenizer), "--ui", "none"]
    command += ["--request-rate", f"{job.rate:g}", "--arrival-pattern", "constant", "--request-count", str(job.count)]
    command += ["--prompt-input-tokens-mean", str(PROMPT_TOKENS), "--prompt-output-tokens-mean", str(NUM_CHUNKS)]
    command += ["--output-artifact-dir", str(job.folder / "artifacts"), "--export-level", "records"]
    command += ["--no-gpu-telemetry", "--no-server-metrics", "--use-server-token-count"]
    run(command, job, env={"HF_HUB_OFFLINE": ""})  # offline it takes a folder's path for a repository's name
    found = next((job.folder / "artifacts").rglob("profile_export.jsonl"), None)
    if found is None:
        raise ToolError("no records were exported")
    records = [json.loads(line) for line in found.read_text().splitlines() if line]
    records = [record for record in records if record["metadata"].get("benchmark_phase", "profiling") == "profiling"]
    records.sort(key=lambda record: record["metadata"]["request_start_ns"])
    if len(records) < job.count or any(record.get("error") for record in records):
        raise ToolError(f"{len(records)} records of {job.count} requests, or some failed")
    return Said(_seconds(records, "time_to_first_token"), _seconds(records, "request_latency"))


def _seconds(records: list[dict[str, Any]], metric: str) -> Any:
    return np.array([record["metrics"][metric]["value"] for record in records], dtype=np.float64) / 1000
