"""GuideLLM as a `LoadGenerator`.

Does not know the truth. Its clock starts when a request is sent.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tests.benchmarks.replayer.load_generator import MODEL, PROMPT_TOKENS, Job, Said, ToolError, beside, run
from tests.benchmarks.replayer.mock_server import NUM_CHUNKS


def guidellm(job: Job) -> Said:
    """See the module."""
    backend = f"kind=openai_http,target={job.base_url},model={MODEL},request_format=/v1/completions"
    data = f"kind=synthetic_text,prompt_tokens={PROMPT_TOKENS},output_tokens={NUM_CHUNKS}"
    command = [beside(job.python, "guidellm"), "run", "--backend", backend, "--data", data]
    command += ["--tokenizer", f"kind=hf_auto,model={job.tokenizer}"]
    command += ["--profile", f"kind=constant,rate={job.rate:g}", "--constraint", f"kind=max_requests,count={job.count}"]
    command += ["--output", f"kind=json,path={job.folder / 'result.json'}", "--disable-console"]
    run(command, job)
    benchmark = json.loads((job.folder / "result.json").read_text())["benchmarks"][0]
    requests: list[dict[str, Any]] = benchmark["requests"]["successful"]
    if len(requests) < job.count:
        raise ToolError(f"{len(requests)} of {job.count} requests succeeded")
    requests.sort(key=lambda request: request["request_start_time"])
    ttft = np.array([request["time_to_first_token_ms"] for request in requests]) / 1000
    return Said(ttft, np.array([request["request_latency"] for request in requests]))
