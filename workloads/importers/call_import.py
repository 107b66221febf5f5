"""A log of calls to requests: in one reading that holds all calls, or in two that hold the sessions which are not over.

Does not know log formats: a `CallsImporter` gives the calls, as often as asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from workloads.importers.importer import Imported, Importer
from workloads.importers.logged_calls import linked, linked_in_order, scanned
from workloads.importers.repairs import Repairs
from workloads.importers.session_links import LoggedCall
from workloads.metadata import WorkloadMetadata
from workloads.tokenizer import TokenCounter


@runtime_checkable
class CallsImporter(Importer, Protocol):
    """Reads a log of calls that are linked by their sessions."""

    def calls(
        self, paths: Sequence[Path], losses: list[str], tokenizer: TokenCounter | None, repairs: Repairs
    ) -> Iterator[LoggedCall]:
        """The calls as the log has them; `losses` is complete when all are taken."""
        ...

    def metadata(
        self, paths: Sequence[Path], start_s: float | None, tokenizer: TokenCounter | None
    ) -> WorkloadMetadata:
        """Args: start_s: of the first call, since 1970."""
        ...


def imported_whole(
    importer: CallsImporter, paths: Sequence[Path], tokenizer: TokenCounter | None, repairs: Repairs
) -> Imported:
    """All calls in memory, whatever their order."""
    losses: list[str] = []
    calls = list(importer.calls(paths, losses, tokenizer, repairs))
    start = min((call.start_s for call in calls if call.start_s is not None), default=None)
    metadata = importer.metadata(paths, start, tokenizer)
    return Imported(requests=linked(calls, losses), metadata=metadata, losses=losses)


def imported_in_order(
    importer: CallsImporter, path: Path, tokenizer: TokenCounter | None, repairs: Repairs
) -> Imported | None:
    """The same requests, read twice; None where the log is not in order of time or its sessions have no names."""
    scan = scanned(importer.calls([path], [], None, Repairs(allowed=repairs.allowed)))
    if scan is None:
        return None
    losses: list[str] = []
    calls = importer.calls([path], losses, tokenizer, repairs)
    metadata = importer.metadata([path], scan.start_s, tokenizer)
    return Imported(requests=linked_in_order(calls, scan, losses), metadata=metadata, losses=losses)
