"""Mooncake traces (and AIPerf's `mooncake_trace`): JSON Lines of milliseconds, lengths and 512-token block hashes.

Does not know text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from workloads.importers.cells import Cells
from workloads.importers.hashed_rows import HALF, first_rows, fitting_block_size, is_lengths, mostly, time_step
from workloads.importers.importer import Imported, license_beside, source_of
from workloads.importers.json_lines import json_lines
from workloads.importers.repairs import NO_REPAIRS, Repairs
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
        lengths = [row for row in rows if is_lengths({"timestamp": 0} | row) and "chat_id" not in row]
        ours = len(lengths) >= HALF * len(rows)
        timed = mostly(type(row.get("timestamp", 0)) is int for row in lengths)
        return ours and timed and fitting_block_size(lengths) == BLOCK_TOKENS

    def read(
        self,
        path: Path,
        *,
        tokenizer: TokenCounter | None = None,  # noqa: ARG002
        repairs: Repairs = NO_REPAIRS,
    ) -> Imported:
        step = time_step(first_rows(path), 0.001)
        metadata = WorkloadMetadata(
            name=path.stem,
            source=source_of(path, self.name, license=license_beside(path.parent), citation=_CITATION),
            time_resolution_s=step,
            prefix=PrefixHashing(block_size=BLOCK_TOKENS, scope="global", tail_hashed=True),
        )
        losses = [f"stamps are multiples of {step:g} s: a replay spreads them within it"] if step > 0.01 else []
        return Imported(requests=_requests(path, repairs), metadata=metadata, losses=losses)


def _requests(path: Path, repairs: Repairs) -> Iterator[Request]:
    last: dict[str, _Turn] = {}  # a session's latest
    for number, (line, row) in enumerate(json_lines(path, repairs)):
        session = None if row.get("session_id") is None else str(row["session_id"])
        before = last.get(session) if session is not None else None
        is_made = False
        with repairs.row(path, line):
            yield _request(Cells(path, line, row, repairs), number, session, before)
            is_made = True
        if session is not None:
            before = before or _NONE
            made = _Turn(str(number), before.number + 1)
            last[session] = made if is_made else before._replace(is_followed=True)


class _Turn(NamedTuple):
    name: str | None
    number: int
    is_followed: bool = False  # by one that was dropped, from whose end the next delay counts


_NONE = _Turn(None, -1)


def _request(cells: Cells, number: int, session: str | None, before: _Turn | None) -> Request:
    stamp, delay = cells.number("timestamp", least=0), cells.spare_number("delay")
    parent, turn, is_followed = before or _NONE
    rest = {name: value for name, value in cells.row.items() if name not in _KNOWN}
    return Request(
        request_id=str(number),
        arrival_s=None if stamp is None else stamp / 1000,
        session_id=session,
        turn=None if session is None else turn + 1,
        parent_ids=() if parent is None else (parent,),
        think_s=None if delay is None or is_followed else delay / 1000,
        input_tokens=cells.needed_count("input_length") or None,
        output_tokens=cells.needed_count("output_length"),
        prefix_hashes=cells.hashes("hash_ids"),
        extra=json_text(rest) if rest else None,
    )
