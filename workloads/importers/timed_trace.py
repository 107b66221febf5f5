"""`vllm bench serve --dataset-name timed_trace`: JSON Lines of seconds, lengths and, often, block hashes.

Does not know the unit or block size for certain: the file does not say (vLLM takes them from its command line).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workloads.errors import WorkloadError, line_place
from workloads.importers.cells import Cells
from workloads.importers.hashed_rows import HALF, first_rows, fitting_block_size, is_lengths, mostly
from workloads.importers.importer import Imported, source_of
from workloads.importers.json_lines import json_lines
from workloads.importers.mooncake import MooncakeImporter
from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.metadata import PrefixHashing, WorkloadMetadata
from workloads.request import Request, json_text
from workloads.tokenizer import TokenCounter

_KNOWN = frozenset(("timestamp", "input_length", "output_length", "hash_ids"))


@dataclass(frozen=True)
class TimedTraceImporter:
    """vLLM's default labels, seconds, and the block size that the hashes fit; Mooncake's own files are `mooncake`."""

    name: str = "vllm-timed-trace"

    def recognises(self, path: Path) -> bool:
        rows = first_rows(path, 100)
        ours = mostly((is_lengths(row) and "chat_id" not in row for row in rows), HALF)
        return ours and not MooncakeImporter().recognises(path)

    def read(
        self,
        path: Path,
        *,
        tokenizer: TokenCounter | None = None,  # noqa: ARG002
        repairs: Repairs = NO_REPAIRS,
    ) -> Imported:
        rows = [row for row in first_rows(path) if is_lengths(row)]
        hashed = any(row.get("hash_ids") is not None for row in rows)
        size = fitting_block_size(rows) if hashed else None
        if hashed and size is None:
            fix = "Give hash_ids of blocks of 16, 32, 64, 128, 256 or 512 tokens, or leave them out"
            place = line_place(path, 1, "hash_ids")
            raise WorkloadError("the hash_ids fit no usual block size", place=place, fix=fix)
        metadata = WorkloadMetadata(
            name=path.stem,
            source=source_of(path, self.name),
            prefix=PrefixHashing(block_size=size, scope="global") if size else None,
        )
        losses = ["the file does not say its unit of time: timestamps were read as seconds, vLLM's default"]
        if size:
            losses.append(f"the file does not say its block size: the hash_ids fit blocks of {size} tokens")
        return Imported(requests=_requests(path, repairs), metadata=metadata, losses=losses)


def _requests(path: Path, repairs: Repairs) -> Iterator[Request]:
    for number, (line, row) in enumerate(json_lines(path, repairs)):
        with repairs.row(path, line):
            yield _request(Cells(path, line, row, repairs), number)


def _request(cells: Cells, number: int) -> Request:
    rest = {name: value for name, value in cells.row.items() if name not in _KNOWN}
    return Request(
        request_id=str(number),
        arrival_s=cells.needed_number("timestamp"),
        input_tokens=cells.needed_count("input_length") or None,
        output_tokens=cells.needed_count("output_length"),
        prefix_hashes=cells.hashes("hash_ids"),
        extra=json_text(rest) if rest else None,
    )
