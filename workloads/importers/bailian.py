"""Qwen-Bailian usage traces: JSON Lines of chats with parents, lengths and 16-token block hashes.

Does not know text, or when answers ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workloads.importers.cells import Cells
from workloads.importers.importer import Imported, license_beside, source_of
from workloads.importers.json_lines import first_object, json_lines
from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.metadata import PrefixHashing, WorkloadMetadata
from workloads.request import Request, json_text
from workloads.tokenizer import TokenCounter

_BLOCK_TOKENS = 16
_COLUMNS = frozenset(("chat_id", "parent_chat_id", "timestamp", "input_length", "output_length", "hash_ids", "turn"))


@dataclass(frozen=True)
class BailianImporter:
    """`chat_id`, `parent_chat_id` (-1: a root), `timestamp` s, lengths, `type`, `turn` from 1, `hash_ids`."""

    name: str = "qwen-bailian"

    def recognises(self, path: Path) -> bool:
        first = first_object(path)
        return first is not None and {"chat_id", "parent_chat_id", "input_length"} <= first.keys()

    def read(
        self,
        path: Path,
        *,
        tokenizer: TokenCounter | None = None,  # noqa: ARG002
        repairs: Repairs = NO_REPAIRS,
    ) -> Imported:
        metadata = WorkloadMetadata(
            name=path.stem,
            source=source_of(path, self.name, license=license_beside(path.parent)),
            prefix=PrefixHashing(block_size=_BLOCK_TOKENS, scope="global"),
        )
        losses = [
            "the trace has no latencies: think times are from arrival to arrival and hold the answer's time too",
            "the source strips <think> from earlier turns, and may hash a prompt's last block with its answer",
        ]
        return Imported(requests=_requests(path, losses, repairs), metadata=metadata, losses=losses)


@dataclass(frozen=True)
class _Chat:
    root: str
    arrival_s: float


def _requests(path: Path, losses: list[str], repairs: Repairs) -> Iterator[Request]:
    seen: dict[int, _Chat] = {}
    num_orphans = 0
    for line, row in json_lines(path, repairs):
        with repairs.row(path, line):
            cells = Cells(path, line, row, repairs)
            chat, arrival = cells.needed_count("chat_id"), cells.needed_number("timestamp")
            named = row.get("parent_chat_id", -1)
            parent = seen.get(named) if isinstance(named, int) else None
            root = parent.root if parent else str(chat)
            yield _request(cells, chat, arrival, root, str(named) if parent else None, parent)
            num_orphans += parent is None and named not in (-1, None)
            seen[chat] = _Chat(root, arrival)
    if num_orphans:
        losses.append(f"{num_orphans} chats name a parent that is not earlier in the file: they begin sessions here")


def _request(cells: Cells, chat: int, arrival: float, root: str, name: str | None, parent: _Chat | None) -> Request:
    turn = cells.spare_count("turn")
    rest = {key: value for key, value in cells.row.items() if key not in _COLUMNS}
    return Request(
        request_id=str(chat),
        arrival_s=arrival,
        session_id=root,
        turn=max(0, turn - 1) if turn is not None else None,
        parent_ids=() if name is None else (name,),
        think_s=max(0.0, arrival - parent.arrival_s) if parent else None,
        input_tokens=cells.needed_count("input_length") or None,
        output_tokens=cells.needed_count("output_length"),
        prefix_hashes=cells.hashes("hash_ids"),
        extra=json_text({"request_type" if key == "type" else key: value for key, value in rest.items()})
        if rest
        else None,
    )
