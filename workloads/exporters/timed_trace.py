"""vLLM `timed_trace` JSON Lines: `timestamp` in seconds, `input_length`, `output_length`, `hash_ids`.

Does not know text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workloads.exporters.exporter import HashIds, needed, present
from workloads.workload import Workload


@dataclass(frozen=True)
class TimedTraceExporter:
    """vLLM's default labels and unit; its block size goes on the command line, which `losses` tells."""

    name: str = "vllm-timed-trace"

    def losses(self, workload: Workload) -> list[str]:
        left = present(workload, "session_id", "parent_ids", "model", "prompt", "messages", "response", "max_tokens")
        told = ["request ids become row numbers"]
        if workload.metadata.prefix is not None:
            size = workload.metadata.prefix.block_size
            told.append(f"the block size is not in the file: give vLLM --timed-trace-chunk-hash-size {size}")
        return told + ([f"left out: {', '.join(left)}"] if left else [])

    def rows(self, workload: Workload) -> Iterator[dict[str, Any]]:
        ids = HashIds(workload.metadata.prefix)
        for request in workload:
            lengths = {
                "input_length": needed(request, "input_tokens"),
                "output_length": needed(request, "output_tokens"),
            }
            yield {"timestamp": float(needed(request, "arrival_s"))} | lengths | ids.of(request)
