"""Baseten traces: parquet with times, lengths, block hashes, latencies and sometimes text.

Does not know how calls are linked (`logged_calls.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from workloads.importers.call_import import imported_whole
from workloads.importers.cells import Cells, iso_time
from workloads.importers.importer import Imported, source_of
from workloads.importers.otel_spans import hashed
from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.importers.rows import first_row, read_rows
from workloads.importers.session_links import LoggedCall
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

    def read(self, path: Path, *, tokenizer: TokenCounter | None = None, repairs: Repairs = NO_REPAIRS) -> Imported:
        return imported_whole(self, [path], tokenizer, repairs)

    def calls(
        self,
        paths: Sequence[Path],
        losses: list[str],
        tokenizer: TokenCounter | None,  # noqa: ARG002
        repairs: Repairs,
    ) -> Iterator[LoggedCall]:
        size, dense = _block_size(paths), dict[object, int]()
        num_misfit, is_guessed = 0, False
        for path in paths:
            for line, row in read_rows(path, repairs):
                with repairs.row(path, line):
                    call = _call(Cells(path, line, row, repairs), size, dense)
                    num_misfit += bool(row.get("total_hashes")) and call.request.prefix_hashes is None
                    is_guessed = is_guessed or bool(call.session and call.session.startswith("guess:"))
                    yield call
        if num_misfit:
            losses.append(f"the hashes of {num_misfit} requests do not fit their lengths and block size: left out")
        if is_guessed:
            losses.append("sessions named guess: are the provider's inference, not the client's")

    def metadata(
        self,
        paths: Sequence[Path],
        start_s: float | None,
        tokenizer: TokenCounter | None,  # noqa: ARG002
    ) -> WorkloadMetadata:
        size = _block_size(paths)
        return WorkloadMetadata(
            name=paths[0].stem,
            source=source_of(paths, self.name),
            start_time=iso_time(start_s),
            time_resolution_s=0.001,
            prefix=PrefixHashing(block_size=size) if size else None,
        )


def _block_size(paths: Sequence[Path]) -> int | None:
    """The first one that a row gives."""
    rows = (Cells(path, line, row, Repairs()) for path in paths for line, row in read_rows(path, Repairs()))
    return next((found for cells in rows if (found := cells.spare_count("block_size"))), None)


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
