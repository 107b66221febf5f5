"""Mooncake JSON Lines: `timestamp` in whole ms, `input_length`, `output_length`, `hash_ids` of 512-token blocks.

Does not know text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workloads.errors import WorkloadError
from workloads.exporters.exporter import HashIds, needed, present
from workloads.importers.mooncake import BLOCK_TOKENS
from workloads.workload import Workload


@dataclass(frozen=True)
class MooncakeExporter:
    """Arrivals are rounded to milliseconds."""

    name: str = "mooncake"

    def losses(self, workload: Workload) -> list[str]:
        left = present(workload, "session_id", "parent_ids", "model", "prompt", "messages", "response", "max_tokens")
        told = ["arrivals are rounded to whole milliseconds", "request ids become row numbers"]
        return told + ([f"left out: {', '.join(left)}"] if left else [])

    def rows(self, workload: Workload) -> Iterator[dict[str, Any]]:
        prefix = workload.metadata.prefix
        if prefix is not None and (prefix.block_size != BLOCK_TOKENS or prefix.tail_hashed is not True):
            what = f"Mooncake hashes blocks of {BLOCK_TOKENS} tokens, the last one too; this workload does not"
            raise WorkloadError(what, fix="Use --format vllm-timed-trace, which takes any block size")
        ids = HashIds(prefix)
        for request in workload:
            lengths = {
                "input_length": needed(request, "input_tokens"),
                "output_length": needed(request, "output_tokens"),
            }
            yield {"timestamp": round(needed(request, "arrival_s") * 1000)} | lengths | ids.of(request)
