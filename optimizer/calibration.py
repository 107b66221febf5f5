"""A workload's own conversations as the calibration data of a quantization. It does not know how they are read.

The file holds what was asked and answered: keep it where only its owner reads, and remove it after the study.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from engine.artifacts.checkpoint_record import CalibrationData, CalibrationRecord
from optimizer.atomic_file import write_text
from optimizer.errors import OptimizerError
from workloads.request import Request
from workloads.workload import Workload

NUM_ROWS = 128


def has_prompts(workload: Workload) -> bool:
    """Whether there is anything to calibrate with."""
    return any(_row(request) for request in workload)


def write_calibration(workload: Workload, path: Path, *, num_rows: int = NUM_ROWS, seed: int = 0) -> CalibrationData:
    """Write requests with their answers as JSON lines: one of each of `num_rows` equal stretches of the workload.

    The same workload, number and seed give the same file.

    Raises:
        OptimizerError: the workload holds no prompts.
    """
    rows = [row for row in map(_row, workload) if row]
    if not rows:
        raise OptimizerError(
            f"workload {workload.metadata.name!r} holds no prompts, so nothing to calibrate with. Give one with its "
            "content, or leave out --calibration"
        )
    edges = np.linspace(0, len(rows), min(num_rows, len(rows)) + 1).astype(int)
    chosen = [rows[place] for place in np.random.default_rng(seed).integers(edges[:-1], edges[1:])]
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chosen))
    record = CalibrationRecord(workload_fingerprint=workload.fingerprint, num_rows=num_rows, seed=seed)
    return CalibrationData(path=path, record=record)


def _row(request: Request) -> dict[str, Any] | None:
    if request.messages is not None:
        answer = [{"role": "assistant", "content": request.response}] if request.response else []
        tools = {"tools": json.loads(request.tools)} if request.tools is not None else {}
        return {"messages": [*request.chat_messages(), *answer], **tools}
    if request.prompt is not None:
        return {"text": request.prompt + (request.response or "")}
    if request.prompt_token_ids is not None:
        return {"token_ids": [*request.prompt_token_ids, *(request.response_token_ids or ())]}
    return None
