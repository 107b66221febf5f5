"""Workloads to other tools' formats, to cross-check with them: one file a format, listed here.

Knows nothing of replays.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from workloads.errors import WorkloadError
from workloads.exporters.aiperf import AiperfExporter
from workloads.exporters.exporter import Exporter
from workloads.exporters.mooncake import MooncakeExporter
from workloads.exporters.timed_trace import TimedTraceExporter
from workloads.exporters.vllm_custom import VllmCustomExporter
from workloads.request import json_text
from workloads.workload import Workload

EXPORTERS: Mapping[str, Exporter] = {
    "vllm-custom": VllmCustomExporter(),
    "vllm-timed-trace": TimedTraceExporter(),
    "mooncake": MooncakeExporter(),
    "aiperf": AiperfExporter(),
}


def export_workload(workload: Workload, path: Path, *, format: str) -> list[str]:
    """Write a workload as JSON Lines of another format; the file appears whole or not at all.

    Returns:
        What the format could not hold, in words.

    Raises:
        WorkloadError: an unknown format, a request without what it needs, or the folder cannot be written.
    """
    if format not in EXPORTERS:
        raise WorkloadError(f"unknown format {format!r}", fix=f"Use one of {', '.join(EXPORTERS)}")
    exporter = EXPORTERS[format]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(json_text(row) + "\n" for row in exporter.rows(workload))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        fix = "Give a path in a folder that exists and can be written"
        raise WorkloadError(f"cannot write {path}: {error.strerror or error}", fix=fix) from None
    finally:
        temporary.unlink(missing_ok=True)
    return exporter.losses(workload)
