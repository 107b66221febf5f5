"""GuideLLM rows: JSON Lines, JSON, CSV or parquet of prompts under any of its column names, with token counts.

Does not know multi-turn rows (`conversation_turns`, numbered columns): those are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workloads.errors import WorkloadError, line_place
from workloads.importers.cells import Cells
from workloads.importers.importer import Imported
from workloads.importers.recorded_turns import conversation_metadata
from workloads.importers.rows import first_row, parsed, read_rows
from workloads.request import Request, json_text
from workloads.tokenizer import TokenCounter

_PROMPTS = ("prompt", "instruction", "question", "input", "context", "content", "conversation", "turn", "text")
_SYSTEMS = ("system_prompt", "system", "prefix")
_INPUTS = ("prompt_tokens_count", "input_tokens_count")
_OUTPUTS = ("output_tokens_count", "completion_tokens_count")
_TOOLS = ("tools", "functions", "tool_definitions")
MARKS = frozenset((*_INPUTS, *_OUTPUTS, "relative_timestamp"))  # columns that are GuideLLM's alone


@dataclass(frozen=True)
class GuideLLMImporter:
    """Recognised by its count or time columns; a system prompt becomes a system message."""

    name: str = "guidellm"

    def recognises(self, path: Path) -> bool:
        first = first_row(path)
        return first is not None and bool(MARKS & first.keys()) and any(name in first for name in _PROMPTS)

    def read(self, path: Path, *, tokenizer: TokenCounter | None = None) -> Imported:
        losses: list[str] = []
        metadata = conversation_metadata(path, self.name, tokenizer)
        return Imported(requests=_requests(path, tokenizer, losses), metadata=metadata, losses=losses)


def _requests(path: Path, tokenizer: TokenCounter | None, losses: list[str]) -> Iterator[Request]:
    num_timeless = num_uncounted = 0
    for number, (line, row) in enumerate(read_rows(path)):
        if "conversation_turns" in row or any(f"{name}_1" in row for name in _PROMPTS):
            fix = "Give rows of one turn each"
            raise WorkloadError("a row of several turns", place=line_place(path, line), fix=fix)
        request = _request(number, Cells(path, line, row), tokenizer)
        num_timeless += request.arrival_s is None
        num_uncounted += None in (request.input_tokens, request.output_tokens)
        yield request
    if num_timeless:
        losses.append(f"{num_timeless} rows have no relative_timestamp: replay with a fixed concurrency")
    if num_uncounted:
        losses.append(f"{num_uncounted} rows lack a token count")


def _request(number: int, cells: Cells, tokenizer: TokenCounter | None) -> Request:
    prompt, system = _first(cells.row, _PROMPTS), _first(cells.row, _SYSTEMS)
    if not isinstance(prompt, str):
        raise cells.misfit("prompt", "Give every row a prompt text")
    tools = parsed(_first(cells.row, _TOOLS))
    messages = [{"role": "user", "content": prompt}]
    if isinstance(system, str):
        messages.insert(0, {"role": "system", "content": system})
    inputs = next((count for name in _INPUTS if (count := cells.count(name)) is not None), None)
    if inputs is None and tokenizer is not None:
        inputs = tokenizer.count(tokenizer.chat_text(messages))
    return Request(
        request_id=str(number),
        arrival_s=cells.number("relative_timestamp", least=0),
        input_tokens=inputs or None,
        output_tokens=next((count for name in _OUTPUTS if (count := cells.count(name)) is not None), None),
        messages=json_text(messages),
        tools=json_text(tools) if isinstance(tools, list) and tools else None,
    )


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)
