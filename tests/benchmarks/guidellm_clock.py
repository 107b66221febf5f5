"""GuideLLM as the second clock of `cross_check`: the same prompts, and its figures under `vllm bench serve`'s names.

Does not run servers. Its E2EL is taken to the last token as ours is (its own `request_latency` goes on to the stream's
end), its TPOT is what it calls inter-token latency (its own "time per output token" has the first token in it).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.replayer.load_generator import beside
from workloads.workload import Workload

RUN_S = 250


def write_prompts(workload: Workload, path: Path) -> None:
    """The workload's texts and lengths as GuideLLM's `json_file` rows."""
    rows = ({"prompt": request.prompt, "output_tokens_count": request.output_tokens} for request in workload)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def guidellm_figures(
    python: Path, *, base_url: str, model: str, tokenizer: Path, prompts: Path, profile: str, count: int
) -> dict[str, float]:
    """One run beside `prompts`.

    Args:
        profile: e.g. `kind=concurrent,streams=4` or `kind=constant,rate=16`.
    """
    result = prompts.with_name("guidellm.json")
    result.unlink(missing_ok=True)
    command = [beside(python, "guidellm"), "run", "--disable-console", "--profile", profile]
    command += ["--backend", f"kind=openai_http,target={base_url},model={model},request_format=/v1/completions"]
    command += ["--data", f"kind=json_file,path={prompts}", "--tokenizer", f"kind=hf_auto,model={tokenizer}"]
    command += ["--constraint", f"kind=max_requests,count={count}", "--output", f"kind=json,path={result}"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "NO_COLOR": "1"}
    log_path = prompts.with_name("guidellm.log")
    with log_path.open("wb") as log:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=RUN_S, check=False
        )
    assert done.returncode == 0, f"guidellm failed: see {log_path}"
    return figures_of(json.loads(result.read_text())["benchmarks"][0]["requests"]["successful"])


def figures_of(requests: list[dict[str, Any]]) -> dict[str, float]:
    """Means over requests, milliseconds; throughput over first sent to last ended."""
    ttft = np.array([request["time_to_first_token_ms"] for request in requests])
    tpot = np.array([request["inter_token_latency_ms"] for request in requests])
    counts = np.array([request["output_tokens"] for request in requests])
    begin = min(request["request_start_time"] for request in requests)
    end = max(request["request_end_time"] for request in requests)
    return {
        "mean_ttft_ms": float(ttft.mean()),
        "mean_tpot_ms": float(tpot.mean()),
        "mean_e2el_ms": float((ttft + tpot * (counts - 1)).mean()),
        "mean_itl_ms": float((tpot * (counts - 1)).sum() / (counts - 1).sum()),
        "request_throughput": len(requests) / (end - begin),
        "completed": len(requests),
        "total_input_tokens": int(sum(request["prompt_tokens"] for request in requests)),
        "total_output_tokens": int(counts.sum()),
    }
