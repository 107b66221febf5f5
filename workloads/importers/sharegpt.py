"""ShareGPT: a JSON array of `{"id", "conversations": [{"from", "value"}]}`; each answer becomes a request.

Does not know times or token counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workloads.errors import WorkloadError, line_place
from workloads.importers.importer import Imported
from workloads.importers.openai_shapes import Message
from workloads.importers.recorded_turns import conversation_losses, conversation_metadata, turns
from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.importers.rows import first_row, parsed, read_rows
from workloads.request import Request
from workloads.tokenizer import TokenCounter

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "system": "system",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
    "bing": "assistant",
}


@dataclass(frozen=True)
class ShareGptImporter:
    """Also as JSON Lines; `tools` is kept."""

    name: str = "sharegpt"

    def recognises(self, path: Path) -> bool:
        first = first_row(path)
        turns_given = first.get("conversations") if first else None
        return isinstance(turns_given, list) and all(isinstance(t, dict) and "from" in t for t in turns_given)

    def read(self, path: Path, *, tokenizer: TokenCounter | None = None, repairs: Repairs = NO_REPAIRS) -> Imported:
        losses = conversation_losses(tokenizer)
        requests = _requests(path, tokenizer, losses, repairs)
        return Imported(requests=requests, metadata=conversation_metadata(path, self.name, tokenizer), losses=losses)


def _requests(path: Path, tokenizer: TokenCounter | None, losses: list[str], repairs: Repairs) -> Iterator[Request]:
    seen: set[str] = set()
    num_repeated = 0
    for number, row in read_rows(path, repairs):
        name = str(row.get("id") or f"conversation-{number}")
        if name in seen:
            num_repeated += 1
            name = f"{name}-{number}"
        seen.add(name)
        tools = parsed(row.get("tools"))
        with repairs.row(path, number):
            messages = _messages(path, number, row)
            yield from turns(name, messages, tools if isinstance(tools, list) else None, tokenizer)
    if num_repeated:
        losses.append(f"{num_repeated} conversation ids occur again: their place was added")


def _messages(path: Path, number: int, row: dict[str, Any]) -> list[Message]:
    given = row.get("conversations")
    if not isinstance(given, list):
        fix = 'Give every entry "conversations": [{"from": ..., "value": ...}]'
        raise WorkloadError("no conversations", place=line_place(path, number, "conversations"), fix=fix)
    messages = []
    for turn in given:
        role = _ROLES.get(str(turn.get("from"))) if isinstance(turn, dict) else None
        if role is None or not isinstance(turn.get("value"), str):
            fix = f"Give each turn a text value, from one of {', '.join(_ROLES)}"
            raise WorkloadError("a turn is not one", place=line_place(path, number, "conversations"), fix=fix)
        messages.append({"role": role, "content": turn["value"]})
    return messages
