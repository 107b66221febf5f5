"""`Quantizer`: llm-compressor as a process in an environment of its own. It does not know the cache.

The other end is `quantize_worker.py`, which tells what it does as JSON lines.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.backend import EngineError, FailureKind
from engine.process import ChildProcess, describe_exit, kept

PYTHON_VARIABLE = "FOPT_QUANTIZER_PYTHON"
TESTED_VERSION = "0.14.0"
_WORKER = Path(__file__).with_name("quantize_worker.py")
PACKAGES = ("llmcompressor", "compressed-tensors", "transformers", "torch")  # that decide what comes out
_VERSIONS_PROGRAM = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {PACKAGES}}}))"
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_WAIT_POLICY": "PASSIVE"}
_POLL_S = 0.05
_SIGKILLED = (-9, 137)

Report = Callable[[str], None]


class Quantizer:
    """Args:
    python: interpreter of the environment with llm-compressor; None is $FOPT_QUANTIZER_PYTHON, else our own.
    """

    def __init__(self, python: str | None = None) -> None:
        self.python = python or os.environ.get(PYTHON_VARIABLE) or sys.executable

    @property
    def worker_sha256(self) -> str:
        """Of the program that quantizes."""
        return hashlib.sha256(_WORKER.read_bytes()).hexdigest()

    def versions(self) -> dict[str, str]:
        """Package to version of what quantizes there.

        Raises:
            EngineError: UNSUPPORTED when the interpreter does not start or lacks llm-compressor.
        """
        found = _installed_versions(self.python)
        if found is None:
            raise EngineError(
                f"quantized checkpoints are made by llm-compressor, which {self.python} does not have. Run `make "
                f".venv-quantizer/.installed` (or install llmcompressor=={TESTED_VERSION} in an environment of its "
                f"own) and give its Python with --quantizer-python or ${PYTHON_VARIABLE}",
                kind=FailureKind.UNSUPPORTED,
            )
        return dict(found)

    def run(self, job: dict[str, Any], folder: Path, *, log_path: Path, report: Report) -> None:
        """Do the job.

        Args:
            folder: where the job's description may be left; the caller removes it.

        Raises:
            EngineError: UNSUPPORTED, BAD_CHECKPOINT or OUT_OF_MEMORY, with the worker's last words.
        """
        description = folder / "job.json"
        description.write_text(json.dumps(job), encoding="utf-8")
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log_path.unlink(missing_ok=True)
        command = kept([self.python, "-I", str(_WORKER), str(description)])
        done: dict[str, Any] = {}
        with ChildProcess(command, log_path=log_path, env=_ENVIRONMENT) as child:
            for event in _events(child):
                if event["event"] == "progress":
                    report(str(event["phase"]))
                done = event
            status = child.process.wait()
        if status != 0 or done.get("event") != "done":
            raise _failure(done, status, child)


@functools.cache
def _installed_versions(python: str) -> dict[str, str] | None:
    if shutil.which(python) is None:
        return None
    try:
        done = subprocess.run(
            [python, "-I", "-c", _VERSIONS_PROGRAM], capture_output=True, text=True, timeout=60, check=True
        )
        found: dict[str, str] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return found


def _events(child: ChildProcess) -> Iterator[dict[str, Any]]:
    """The worker's JSON lines as they come, until it ends and every line is read."""
    with child.log_path.open(encoding="utf-8", errors="replace") as log:
        pending, ended = "", False
        while not ended:
            ended = child.exit_status() is not None
            pending += log.read()
            *lines, pending = pending.split("\n")
            yield from (event for event in map(_event, lines) if event)
            if not ended:
                time.sleep(_POLL_S)


def _event(line: str) -> dict[str, Any] | None:
    if not line.startswith('{"event"'):
        return None
    try:
        value: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return value


def _failure(last: dict[str, Any], status: int, child: ChildProcess) -> EngineError:
    where = f"See {child.log_path}"
    if last.get("event") == "failed":
        words = " ".join(str(last["message"]).split())
        return EngineError(
            f"llm-compressor failed: {words}. {where}", kind=FailureKind(last["kind"]), log_path=child.log_path
        )
    words = next((line.strip() for line in reversed(child.log_tail()) if line.strip()), "its log is empty")
    kind, guess = FailureKind.UNSUPPORTED, ""
    if status in _SIGKILLED:
        kind, guess = FailureKind.OUT_OF_MEMORY, ", probably for want of memory"
    message = f"llm-compressor ended without a result ({describe_exit(status)}{guess}): {words}. {where}"
    return EngineError(message, kind=kind, log_path=child.log_path)
