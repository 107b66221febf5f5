"""`vllm bench serve --dataset-name custom` JSON Lines: `prompt`, `output_tokens`.

Does not know arrivals or chat messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workloads.exporters.exporter import needed, present
from workloads.workload import Workload


@dataclass(frozen=True)
class VllmCustomExporter:
    """vLLM shuffles, oversamples and overrides lengths unless told not to, which `losses` tells."""

    name: str = "vllm-custom"

    def losses(self, workload: Workload) -> list[str]:
        left = present(
            workload, "arrival_s", "session_id", "parent_ids", "model", "response", "max_tokens", "temperature"
        )
        told = [
            "request ids become row numbers",
            "give vLLM --custom-output-len -1 --disable-shuffle --no-oversample --skip-chat-template",
        ]
        return told + ([f"left out: {', '.join(left)}"] if left else [])

    def rows(self, workload: Workload) -> Iterator[dict[str, Any]]:
        for request in workload:
            counted = {} if request.output_tokens is None else {"output_tokens": request.output_tokens}
            yield {"prompt": needed(request, "prompt")} | counted
