"""Small workloads for tests."""

import os
from pathlib import Path
from typing import Any

from workloads.metadata import Source, WorkloadMetadata
from workloads.request import Request
from workloads.workload import Workload


def metadata(**changes: Any) -> WorkloadMetadata:
    """Minimal metadata with changes."""
    return WorkloadMetadata(**({"name": "test", "source": Source(format="test")} | changes))


def workload(*requests: Request, **changes: Any) -> Workload:
    """A workload of these requests."""
    return Workload.from_requests(requests, metadata(**changes))


def chat(request_id: str, arrival_s: float | None, **changes: Any) -> Request:
    """A one-message chat request of 7 input and 3 output tokens."""
    fields: dict[str, Any] = {
        "messages": '[{"role":"user","content":"hello"}]',
        "input_tokens": 7,
        "output_tokens": 3,
    }
    return Request(request_id=request_id, arrival_s=arrival_s, **(fields | changes))


TRACES = Path(os.environ.get("FOPT_TRACES") or Path(__file__).parents[3] / "shared" / "traces")  # public recordings
