"""Agent-session traces: one JSON object a session, with lengths, think times and block hashes local to the session.

Does not know text. Does not know when sessions began: `t` counts from each session's start.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workloads.errors import WorkloadError, line_place
from workloads.importers.cells import Cells
from workloads.importers.importer import Imported, source_of
from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.importers.rows import Row, first_row, read_rows
from workloads.metadata import PrefixHashing, WorkloadMetadata
from workloads.request import Request, json_text
from workloads.tokenizer import TokenCounter

_COLUMNS = frozenset(("t", "model", "in", "out", "hash_ids", "stop", "api_time", "think_time", "ttft"))
_FINISH = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}


@dataclass(frozen=True)
class AgentSessionsImporter:
    """`{id, block_size, requests: [{t, in, out, hash_ids, api_time, think_time, ...}]}`; subagents are nested."""

    name: str = "agent-sessions"

    def recognises(self, path: Path) -> bool:
        first = first_row(path)
        return first is not None and isinstance(first.get("requests"), list) and {"id", "block_size"} <= first.keys()

    def read(self, path: Path, *, tokenizer: TokenCounter | None = None, repairs: Repairs = NO_REPAIRS) -> Imported:
        return self.read_all([path], tokenizer=tokenizer, repairs=repairs)

    def read_all(
        self,
        paths: Sequence[Path],
        *,
        tokenizer: TokenCounter | None = None,  # noqa: ARG002
        repairs: Repairs = NO_REPAIRS,
    ) -> Imported:
        given = ((path, line, row) for path in paths for line, row in read_rows(path, repairs))
        first = list(itertools.islice(given, 2))
        timed = len(first) == 1
        size = next((row["block_size"] for _, _, row in first if _is_size(row.get("block_size"))), None)
        metadata = WorkloadMetadata(
            name=paths[0].stem if timed else paths[0].parent.name,
            source=source_of(paths, self.name),
            time_resolution_s=1.0,
            prefix=PrefixHashing(block_size=size, scope="session", tail_hashed=False) if size else None,
        )
        losses = ["tool and system tokens of the session are not told apart in its requests"]
        if not timed:
            losses.append("sessions have no common clock: there are no arrivals; replay with a fixed concurrency")
        requests = _requests(itertools.chain(first, given), size, repairs, timed=timed)
        return Imported(requests=requests, metadata=metadata, losses=losses)


def _is_size(value: object) -> bool:
    return type(value) is int and value > 0


def _requests(
    sessions: Iterator[tuple[Path, int, Row]], size: int | None, repairs: Repairs, *, timed: bool
) -> Iterator[Request]:
    for path, line, row in sessions:
        with repairs.row(path, line):
            if size is None or row.get("block_size") != size:
                place = line_place(path, line, "block_size")
                raise WorkloadError("no one block_size", place=place, fix="Give sessions of one block size > 0")
            yield from _Session(path, line, row, repairs, timed).requests()


@dataclass(frozen=True)
class _Session:
    path: Path
    line: int
    row: Row
    repairs: Repairs
    timed: bool

    def requests(self) -> Iterator[Request]:
        found: list[Request] = []
        with self.repairs.row(self.path, self.line):
            self._chain(self.row.get("requests"), None, None, found)
        return iter(found)

    def _chain(self, rows: object, agent: str | None, parent: Request | None, found: list[Request]) -> None:
        """One agent's requests, each waiting for the one before; a subagent's first waits for what called it."""
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            fix = "Give each session a list of request objects"
            raise WorkloadError("no list of requests", place=line_place(self.path, self.line, "requests"), fix=fix)
        is_followed = False  # by one that was dropped, from whose end the next one's think time counts
        for row in rows:
            if isinstance(row.get("requests"), list):
                name = str(row.get("agent_id") or f"agent-{len(found)}")
                self._chain(row["requests"], name, parent, found)
                continue
            made = None
            with self.repairs.row(self.path, self.line):
                made = self._request(row, len(found), agent, parent)
                parent = replace(made, think_s=None) if is_followed else made
                found.append(parent)
            is_followed = made is None

    def _request(self, row: dict[str, Any], number: int, agent: str | None, parent: Request | None) -> Request:
        cells = Cells(self.path, self.line, row, self.repairs)
        session = str(self.row.get("id"))
        rest = {name: value for name, value in row.items() if name not in _COLUMNS}
        if agent is not None:
            rest["agent_id"] = agent
        stop = row.get("stop")
        return Request(
            request_id=f"{session}#{number}",
            arrival_s=cells.number("t", least=0) if self.timed else None,
            session_id=session,
            turn=number,
            parent_ids=(parent.request_id,) if parent else (),
            think_s=cells.spare_number("think_time") if parent else None,
            model=row.get("model"),
            input_tokens=cells.needed_count("in") or None,
            output_tokens=cells.needed_count("out"),
            prefix_hashes=cells.hashes("hash_ids"),
            finish_reason=_FINISH.get(str(stop), stop),
            ttft_s=cells.spare_number("ttft"),
            e2el_s=cells.spare_number("api_time"),
            extra=json_text(rest),
        )
