"""AIPerf `multi_turn` JSON Lines: a session a line, each turn its newest user text with a time or a delay in ms.

Does not know answers: AIPerf sends on what the server says. A turn that waits for several others becomes a chain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workloads.errors import WorkloadError
from workloads.exporters.exporter import present
from workloads.importers.openai_shapes import plain_text
from workloads.request import Request
from workloads.workload import Workload


@dataclass(frozen=True)
class AiperfExporter:
    """The first turn has its arrival, later ones their think time; a request without session is one of one turn."""

    name: str = "aiperf"

    def losses(self, workload: Workload) -> list[str]:
        left = present(workload, "input_tokens", "model", "tools", "response", "max_tokens")
        told = ["times are rounded to whole milliseconds; of each turn only the newest user text is kept"]
        return told + ([f"left out: {', '.join(left)}"] if left else [])

    def rows(self, workload: Workload) -> Iterator[dict[str, Any]]:
        sessions: dict[str, list[Request]] = {}
        for request in workload:
            name = request.session_id if request.session_id is not None else request.request_id
            sessions.setdefault(name, []).append(request)
        for name, requests in sessions.items():
            requests.sort(key=lambda request: request.turn or 0)
            yield {"session_id": name, "turns": [_turn(request, first=not i) for i, request in enumerate(requests)]}


def _turn(request: Request, *, first: bool) -> dict[str, Any]:
    texts = [plain_text(message) for message in request.chat_messages() if message.get("role") == "user"]
    text = texts[-1] if texts else request.prompt
    if text is None:
        what = f"request {request.request_id!r:.60} has no user text, which the format needs"
        raise WorkloadError(what, fix="Choose another --format, or import the workload with text")
    seconds = request.arrival_s if first else request.think_s
    timed = {} if seconds is None else {"timestamp" if first else "delay": round(seconds * 1000)}
    counted = {} if request.output_tokens is None else {"output_length": request.output_tokens}
    return {"text": text} | timed | counted
