"""Baseten traces: parquet with times, lengths, block hashes, latencies and sometimes text.

Does not know how calls are linked (`logged_calls.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from workloads.importers.cells import Cells, iso_time
from workloads.importers.importer import Imported, source_of
from workloads.importers.logged_calls import LoggedCall, linked
from workloads.importers.otel_spans import hashed
from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.importers.rows import first_row, read_rows
from workloads.metadata import PrefixHashing, WorkloadMetadata
from workloads.request import Request, json_text
from workloads.tokenizer import TokenCounter


@dataclass(frozen=True)
class BasetenImporter:
    """`timestamp_start_unix_ms`, `input_tokens`, `output_tokens`, `total_hashes`, `duration_e2e_ms`, ..."""

    name: str = "baseten"

    def recognises(self, path: Path) -> bool:
        first = first_row(path)
        return first is not None and {"timestamp_start_unix_ms", "input_tokens", "output_tokens"} <= first.keys()

    def read(
        self,
        path: Path,
        *,
        tokenizer: TokenCounter | None = None,  # noqa: ARG002
        repairs: Repairs = NO_REPAIRS,
    ) -> Imported:
        losses: list[str] = []
        rows = [Cells(path, line, row, repairs) for line, row in read_rows(path, repairs)]
        size = next((found for cells in rows if (found := cells.spare_count("block_size"))), None)
        dense: dict[object, int] = {}
        made = list(repairs.made(rows, lambda cells: (cells, _call(cells, size, dense))))
        rows, calls = [cells for cells, _ in made], [call for _, call in made]
        num_misfit = sum(bool(cells.row.get("total_hashes")) for cells in rows)
        num_misfit -= sum(call.request.prefix_hashes is not None for call in calls)
        if num_misfit:
            losses.append(f"the hashes of {num_misfit} requests do not fit their lengths and block size: left out")
        if any(call.session is not None and call.session.startswith("guess:") for call in calls):
            losses.append("sessions named guess: are the provider's inference, not the client's")
        start = min((call.start_s for call in calls if call.start_s is not None), default=None)
        metadata = WorkloadMetadata(
            name=path.stem,
            source=source_of(path, self.name),
            start_time=iso_time(start),
            time_resolution_s=0.001,
            prefix=PrefixHashing(block_size=size) if size else None,
        )
        return Imported(requests=linked(calls, losses), metadata=metadata, losses=losses)


def _call(cells: Cells, size: int | None, dense: dict[object, int]) -> LoggedCall:
    row = cells.row
    start = cells.needed_number("timestamp_start_unix_ms") / 1000
    latency, first = cells.spare_number("duration_e2e_ms"), cells.spare_number("duration_ttft_ms")
    inputs, hashes = cells.needed_count("input_tokens"), row.get("total_hashes") or []
    fits = bool(size) and bool(hashes) and inputs // (size or 1) <= len(hashes) <= -(-inputs // (size or 1))
    cancelled = bool(row.get("request_canceled"))
    speculation = row.get("speculation_ratio")
    request = Request(
        request_id=str(cells.line),
        model=row.get("model_name"),
        tenant=hashed(row.get("org_id")),
        input_tokens=inputs or None,
        output_tokens=cells.needed_count("output_tokens"),
        cached_tokens=cells.spare_count("cached_tokens_reference"),
        prompt=row.get("prompt") or None,
        prefix_hashes=tuple(dense.setdefault(block, len(dense)) for block in hashes) if fits else None,
        response=row.get("output_text"),
        status="cancelled" if cancelled else "ok" if inputs else "error",
        ttft_s=None if first is None else first / 1000,
        e2el_s=None if latency is None else latency / 1000,
        extra=json_text({"speculation_ratio": speculation}) if speculation is not None else None,
    )
    guessed = row.get("poor_man_session_id")
    session = row.get("provided_session_id") or (f"guess:{guessed}" if guessed else None)
    end = None if latency is None else start + latency / 1000
    return LoggedCall(request=request, start_s=start, end_s=end, session=session, reply_text=request.response)
