"""Azure LLM inference traces (2023 code and conversation, 2024, 2025 multimodal): CSV of stamps and lengths.

Does not know text: these traces have none.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from workloads.errors import WorkloadError, line_place
from workloads.importers.cells import epoch_seconds
from workloads.importers.importer import Imported, license_beside, source_of
from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.importers.rows import Row, csv_rows, first_row
from workloads.importers.source_file import text_lines
from workloads.metadata import WorkloadMetadata
from workloads.request import Request, json_text
from workloads.tokenizer import TokenCounter

_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_CITATION = "Patel et al., Splitwise: Efficient Generative LLM Inference Using Phase Splitting, ISCA 2024"


@dataclass(frozen=True)
class AzureImporter:
    """`TIMESTAMP,ContextTokens,GeneratedTokens[,NumImages]`."""

    name: str = "azure"

    def recognises(self, path: Path) -> bool:
        try:
            header = next(csv.reader(text_lines(path)), [])
        except (OSError, ValueError, csv.Error):
            return False
        return set(_COLUMNS) <= set(header)

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
            start_time=_first_stamp(path),
            time_resolution_s=1e-7,
        )
        return Imported(requests=_requests(path, repairs), metadata=metadata, losses=[])


def _requests(path: Path, repairs: Repairs) -> Iterator[Request]:
    tenant = next((name for name in ("code", "conv") if name in path.stem.lower()), None)
    header = next(csv.reader(text_lines(path, Repairs(allowed=repairs.allowed))), [])
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        fix = f"Give an Azure trace: {','.join(_COLUMNS)}"
        raise WorkloadError(f"no column {missing[0]}", place=line_place(path, 1), fix=fix)
    zero: int | None = None
    for number, (line, row) in enumerate(csv_rows(path, repairs)):
        with repairs.row(path, line):
            cells = _Cells(path, line, row)
            ticks = cells.ticks("TIMESTAMP")
            request = _request(number, cells, (ticks - (ticks if zero is None else zero)) / 10**7, tenant)
            zero = ticks if zero is None else zero
            yield request


@dataclass(frozen=True)
class _Cells:
    """One row and where it is."""

    path: Path
    line: int
    row: Row

    def count(self, name: str) -> int:
        text = (self.row.get(name) or "").strip()
        if not text.isdecimal() or int(text) >= 2**31:
            raise self._misfit(name, text, "Token counts are whole numbers >= 0")
        return int(text)

    def ticks(self, name: str) -> int:
        """The stamp in units of 0.1 µs, exact."""
        text = (self.row.get(name) or "").strip()
        whole, _, fraction = text.removesuffix("+00:00").removesuffix("Z").partition(".")
        try:
            seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
            return seconds * 10**7 + int(fraction.ljust(7, "0")[:7] or "0")
        except ValueError:
            raise self._misfit(name, text, "Stamps look like 2023-11-16 18:17:03.9799600") from None

    def _misfit(self, name: str, text: str, fix: str) -> WorkloadError:
        return WorkloadError(f"{name} is {text!r:.40}", place=line_place(self.path, self.line, name), fix=fix)


def _request(number: int, cells: _Cells, arrival_s: float, tenant: str | None) -> Request:
    input_tokens = cells.count("ContextTokens")
    images = cells.count("NumImages") if cells.row.get("NumImages") else 0
    return Request(
        request_id=str(number),
        arrival_s=arrival_s,
        tenant=tenant,
        input_tokens=input_tokens,
        output_tokens=cells.count("GeneratedTokens"),
        status=None if input_tokens else "error",
        extra=json_text({"n_images": images}) if images else None,
    )


def _first_stamp(path: Path) -> str | None:
    row = first_row(path)
    stamp = row.get("TIMESTAMP") if row else None
    return stamp.replace(" ", "T") if stamp and epoch_seconds(stamp) is not None else None
