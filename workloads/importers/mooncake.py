"""Mooncake traces (and AIPerf's `mooncake_trace`): JSON Lines of milliseconds, lengths and 512-token block hashes.

Does not know text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workloads.importers.cells import Cells
from workloads.importers.hashed_rows import first_rows, hashes_fit, is_lengths, time_step
from workloads.importers.importer import Imported, license_beside, source_of
from workloads.importers.json_lines import json_lines
from workloads.metadata import PrefixHashing, WorkloadMetadata
from workloads.request import Request, json_text
from workloads.tokenizer import TokenCounter

BLOCK_TOKENS = 512
_CITATION = "Qin et al., Mooncake: Trading More Storage for Less Computation, FAST 2025"
_KNOWN = frozenset(("timestamp", "input_length", "output_length", "hash_ids", "session_id", "delay"))


@dataclass(frozen=True)
class MooncakeImporter:
    """`timestamp` in whole ms, `input_length`, `output_length`, `hash_ids`; AIPerf adds `session_id` and `delay` ms."""

    name: str = "mooncake"

    def recognises(self, path: Path) -> bool:
        rows = first_rows(path, 100)
        timed = all(type(row.get("timestamp", 0)) is int and "chat_id" not in row for row in rows)
        return timed and hashes_fit(rows, BLOCK_TOKENS) and all(is_lengths({"timestamp": 0} | row) for row in rows)

    def read(self, path: Path, *, tokenizer: TokenCounter | None = None) -> Imported:  # noqa: ARG002
        step = time_step(first_rows(path), 0.001)
        metadata = WorkloadMetadata(
            name=path.stem,
            source=source_of(path, self.name, license=license_beside(path.parent), citation=_CITATION),
            time_resolution_s=step,
            prefix=PrefixHashing(block_size=BLOCK_TOKENS, scope="global", tail_hashed=True),
        )
        losses = [f"stamps are multiples of {step:g} s: a replay spreads them within it"] if step > 0.01 else []
        return Imported(requests=_requests(path), metadata=metadata, losses=losses)


def _requests(path: Path) -> Iterator[Request]:
    last: dict[str, tuple[str, int]] = {}  # session: its latest request and turn
    for number, (line, row) in enumerate(json_lines(path)):
        cells = Cells(path, line, row)
        stamp, delay = cells.number("timestamp", least=0), cells.number("delay", least=0)
        session = None if row.get("session_id") is None else str(row["session_id"])
        parent, turn = last.get(session, (None, -1)) if session is not None else (None, None)
        rest = {name: value for name, value in row.items() if name not in _KNOWN}
        yield Request(
            request_id=str(number),
            arrival_s=None if stamp is None else stamp / 1000,
            session_id=session,
            turn=None if turn is None else turn + 1,
            parent_ids=() if parent is None else (parent,),
            think_s=None if delay is None else delay / 1000,
            input_tokens=cells.needed_count("input_length") or None,
            output_tokens=cells.needed_count("output_length"),
            prefix_hashes=cells.hashes("hash_ids"),
            extra=json_text(rest) if rest else None,
        )
        if session is not None:
            last[session] = (str(number), (turn if turn is not None else -1) + 1)
