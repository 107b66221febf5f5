"""Vidur traces: CSV of arrival seconds and of prefill and decode lengths.

Does not know text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workloads.importers.cells import Cells
from workloads.importers.importer import Imported, source_of
from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.importers.rows import first_row, read_rows
from workloads.metadata import WorkloadMetadata
from workloads.request import Request
from workloads.tokenizer import TokenCounter


@dataclass(frozen=True)
class VidurImporter:
    """`[arrived_at,]num_prefill_tokens,num_decode_tokens[,pd_ratio]`; the ratio follows from the lengths."""

    name: str = "vidur"

    def recognises(self, path: Path) -> bool:
        first = first_row(path)
        return first is not None and {"num_prefill_tokens", "num_decode_tokens"} <= first.keys()

    def read(
        self,
        path: Path,
        *,
        tokenizer: TokenCounter | None = None,  # noqa: ARG002
        repairs: Repairs = NO_REPAIRS,
    ) -> Imported:
        losses: list[str] = []
        metadata = WorkloadMetadata(name=path.stem, source=source_of(path, self.name))
        return Imported(requests=_requests(path, losses, repairs), metadata=metadata, losses=losses)


def _requests(path: Path, losses: list[str], repairs: Repairs) -> Iterator[Request]:
    num_timeless = 0
    for number, (line, row) in enumerate(read_rows(path, repairs)):
        with repairs.row(path, line):
            cells = Cells(path, line, row, repairs)
            arrival = cells.number("arrived_at", least=0)
            num_timeless += arrival is None
            yield Request(
                request_id=str(number),
                arrival_s=arrival,
                input_tokens=cells.needed_count("num_prefill_tokens") or None,
                output_tokens=cells.needed_count("num_decode_tokens"),
            )
    if num_timeless:
        losses.append(f"{num_timeless} rows have no arrived_at: replay with a fixed concurrency")
