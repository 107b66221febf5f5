"""OpenAI-style fine-tuning JSON Lines: `{"messages": [...], "tools"?}`; assistant turns are the reference answers.

Does not know times or token counts. Preference pairs (`preferred_output`) give their preferred answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workloads.errors import WorkloadError, line_place
from workloads.importers.importer import Imported
from workloads.importers.json_lines import first_object, json_lines
from workloads.importers.openai_shapes import Message
from workloads.importers.recorded_turns import conversation_losses, conversation_metadata, turns
from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.request import Request
from workloads.tokenizer import TokenCounter


@dataclass(frozen=True)
class FineTuningImporter:
    """A turn of `weight: 0` is context only."""

    name: str = "fine-tuning"

    def recognises(self, path: Path) -> bool:
        first = first_object(path)
        if first is None or "call_type" in first or "timestamp" in first:
            return False
        if "preferred_output" in first:
            return True
        given = first.get("messages")
        return isinstance(given, list) and any(isinstance(m, dict) and m.get("role") == "assistant" for m in given)

    def read(self, path: Path, *, tokenizer: TokenCounter | None = None, repairs: Repairs = NO_REPAIRS) -> Imported:
        losses = conversation_losses(tokenizer)
        requests = _requests(path, tokenizer, losses, repairs)
        return Imported(requests=requests, metadata=conversation_metadata(path, self.name, tokenizer), losses=losses)


def _requests(path: Path, tokenizer: TokenCounter | None, losses: list[str], repairs: Repairs) -> Iterator[Request]:
    num_pairs = 0
    for line, row in json_lines(path, repairs):
        num_pairs += "preferred_output" in row
        with repairs.row(path, line):
            given = row["input"] if isinstance(row.get("input"), dict) else row
            tools = given.get("tools")
            messages = _messages(path, line, "messages", given.get("messages"))
            if "preferred_output" in row:
                context = [message | {"weight": 0} for message in messages]
                messages = context + _messages(path, line, "preferred_output", row["preferred_output"])
            yield from turns(f"line-{line}", messages, tools if isinstance(tools, list) else None, tokenizer)
    if num_pairs:
        losses.append(f"the answers that were not preferred in {num_pairs} pairs were left out")


def _messages(path: Path, line: int, name: str, given: Any) -> list[Message]:
    if not isinstance(given, list) or not all(isinstance(m, dict) and "role" in m for m in given):
        fix = 'Give every line "messages": [{"role": ..., "content": ...}]'
        raise WorkloadError(f"{name} is no list of messages", place=line_place(path, line, name), fix=fix)
    return given
