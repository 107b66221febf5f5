"""BurstGPT: CSV of whole seconds, models and lengths; from v1.2 with session ids and elapsed times.

Does not know text or first tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workloads.importers.cells import Cells
from workloads.importers.importer import Imported, license_beside, source_of
from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.importers.rows import first_row, read_rows
from workloads.metadata import WorkloadMetadata
from workloads.request import Request, json_text
from workloads.tokenizer import TokenCounter

_CITATION = "Wang et al., BurstGPT: A Real-World Workload Dataset to Optimize LLM Serving Systems, KDD 2025"


@dataclass(frozen=True)
class BurstGptImporter:
    """`Timestamp,[Session ID,Elapsed time,]Model,Request tokens,Response tokens,Total tokens,Log Type`."""

    name: str = "burstgpt"

    def recognises(self, path: Path) -> bool:
        first = first_row(path)
        return first is not None and {"Timestamp", "Model", "Request tokens", "Response tokens"} <= first.keys()

    def read(
        self,
        path: Path,
        *,
        tokenizer: TokenCounter | None = None,  # noqa: ARG002
        repairs: Repairs = NO_REPAIRS,
    ) -> Imported:
        metadata = WorkloadMetadata(
            name=path.stem,
            source=source_of(path, self.name, license=license_beside(path.parent), citation=_CITATION),
            time_resolution_s=1.0,
        )
        losses: list[str] = []
        return Imported(requests=_requests(path, losses, repairs), metadata=metadata, losses=losses)


@dataclass(frozen=True)
class _Turn:
    name: str
    number: int
    end_s: float


def _requests(path: Path, losses: list[str], repairs: Repairs) -> Iterator[Request]:
    last: dict[str, _Turn] = {}
    num_overlapping = 0
    for number, (line, row) in enumerate(read_rows(path, repairs)):
        with repairs.row(path, line):
            cells = Cells(path, line, row, repairs)
            start, elapsed = cells.needed_number("Timestamp"), cells.spare_number("Elapsed time")
            session = row.get("Session ID")
            before = last.get(session) if session else None
            waits = before is not None and before.end_s <= start + 1  # stamps are whole seconds
            turn = before.number + 1 if before else 0
            yield _request(cells, number, session, turn, before if waits else None, elapsed)
            num_overlapping += before is not None and not waits
            if session:
                last[session] = _Turn(str(number), turn, start + (elapsed or 0.0))
    if num_overlapping:
        losses.append(f"{num_overlapping} turns start before the one before has ended: they wait for none")


def _request(
    cells: Cells, number: int, session: str | None, turn: int, parent: _Turn | None, elapsed: float | None
) -> Request:
    start, outputs = cells.needed_number("Timestamp"), cells.needed_count("Response tokens")
    kind = cells.row.get("Log Type")
    return Request(
        request_id=str(number),
        arrival_s=start,
        session_id=session,
        turn=turn if session else None,
        parent_ids=(parent.name,) if parent else (),
        think_s=max(0.0, start - parent.end_s) if parent else None,
        model=cells.row.get("Model"),
        input_tokens=cells.needed_count("Request tokens"),
        output_tokens=outputs,
        status="ok" if outputs else "error",
        e2el_s=elapsed,
        extra=json_text({"request_type": kind}) if kind else None,
    )
