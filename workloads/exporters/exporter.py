"""`Exporter`: a workload to the lines of another tool's format.

Does not know the members (`__init__.py`) or files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from workloads.errors import WorkloadError
from workloads.metadata import PrefixHashing
from workloads.request import Request
from workloads.workload import Workload


class Exporter(Protocol):
    """Writes one format."""

    @property
    def name(self) -> str:
        """What `--format` calls it; the importer of the same name reads it back."""
        ...

    def losses(self, workload: Workload) -> list[str]:
        """What of this workload the format cannot hold, in words."""
        ...

    def rows(self, workload: Workload) -> Iterator[dict[str, Any]]:
        """One JSON object a line.

        Raises:
            WorkloadError: a request without what the format needs.
        """
        ...


def needed(request: Request, name: str) -> Any:
    """A field that the format cannot do without.

    Raises:
        WorkloadError: the request has none.
    """
    value = getattr(request, name)
    if value is None:
        what = f"request {request.request_id!r:.60} has no {name}, which the format needs"
        raise WorkloadError(what, fix="Import the workload with it, or choose another --format")
    return value


class HashIds:
    """Block ids as the format has them: one file-wide space, whatever their scope was."""

    def __init__(self, hashing: PrefixHashing | None) -> None:
        self._by_session = hashing is not None and hashing.scope == "session"
        self._ids: dict[tuple[str | None, int], int] = {}

    def of(self, request: Request) -> dict[str, list[int]]:
        """`hash_ids` of a request that has them, else nothing."""
        if request.prefix_hashes is None:
            return {}
        if not self._by_session:
            return {"hash_ids": list(request.prefix_hashes)}
        keys = [(request.session_id, block) for block in request.prefix_hashes]
        return {"hash_ids": [self._ids.setdefault(key, len(self._ids)) for key in keys]}


def present(workload: Workload, *names: str) -> list[str]:
    """Those of the columns that hold anything."""
    return [name for name in names if workload.table.column(name).null_count < len(workload)]
