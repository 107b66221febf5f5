"""A workload's own conversations as the calibration data of a quantization. It does not know how they are read.

The file holds what was asked and answered: keep it where only its owner reads, and remove it after the study.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from optimizer.atomic_file import write_text
from optimizer.errors import OptimizerError
from workloads.request import Request
from workloads.workload import Workload

NUM_ROWS = 128


def write_calibration(workload: Workload, path: Path, *, num_rows: int = NUM_ROWS) -> Path:
    """Write requests with their recorded answers, evenly over the workload, as JSON lines.

    Raises:
        OptimizerError: the workload holds no prompts.
    """
    rows = [row for row in map(_row, workload) if row]
    if not rows:
        raise OptimizerError(
            f"workload {workload.metadata.name!r} holds no prompts, so nothing to calibrate with. Give one with its "
            "content, or leave out --calibration"
        )
    step = max(1.0, len(rows) / num_rows)
    chosen = [rows[int(number * step)] for number in range(min(num_rows, len(rows)))]
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chosen))
    return path


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
