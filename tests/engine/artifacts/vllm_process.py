"""vLLM's CPU build as a process, for tests: `FOPT_VLLM_PYTHON` names the Python that has it."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

PROBE = Path(__file__).with_name("vllm_probe.py")
VERSION = "0.32.0+cpu"


def vllm_python() -> str:
    """Skips the test where the variable is not set."""
    python = os.environ.get("FOPT_VLLM_PYTHON")
    if not python:
        pytest.skip("FOPT_VLLM_PYTHON does not name a Python with vLLM's CPU build")
    return python


def vllm_answers(
    folder: Path, prompts: list[list[int]], tmp_path: Path, *, max_tokens: int, speculative_config: Any = None
) -> dict[str, Any]:
    """Greedy token ids of each prompt, and the counts of drafted and accepted tokens."""
    job = tmp_path / "job.json"
    fields = {"model": str(folder), "prompts": prompts, "max_tokens": max_tokens}
    job.write_text(json.dumps({**fields, "speculative_config": speculative_config}))
    process = subprocess.Popen(
        [vllm_python(), str(PROBE), str(job)],
        env=os.environ | _environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    try:
        output, _ = process.communicate(timeout=200)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    result = [line for line in output.splitlines() if line.startswith("RESULT ")]
    assert result, output[-3000:]
    answers: dict[str, Any] = json.loads(result[0].removeprefix("RESULT "))
    return answers


def _environment(tmp_path: Path) -> dict[str, str]:
    """vLLM's CPU build looks for a distribution called vllm; one process is enough here."""
    metadata = tmp_path / "metadata" / f"vllm-{VERSION}.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True, exist_ok=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}\n")
    return {
        "PYTHONPATH": str(metadata.parents[1]),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
