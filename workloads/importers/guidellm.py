"""GuideLLM rows: JSON Lines, JSON, CSV or parquet of prompts under any of its column names, of one turn or several.

Does not know answers: later turns' prompts hold the user's turns alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workloads.importers.cells import Cells
from workloads.importers.importer import Imported
from workloads.importers.recorded_turns import conversation_metadata
from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.importers.rows import first_row, parsed, read_rows
from workloads.request import Request, json_text
from workloads.tokenizer import TokenCounter

_PROMPTS = ("prompt", "instruction", "question", "input", "context", "content", "conversation", "turn", "text")
_SYSTEMS = ("system_prompt", "system", "prefix")
_INPUTS = ("prompt_tokens_count", "input_tokens_count")
_OUTPUTS = ("output_tokens_count", "completion_tokens_count")
_TOOLS = ("tools", "functions", "tool_definitions")
MARKS = frozenset((*_INPUTS, *_OUTPUTS, "relative_timestamp"))  # columns that are GuideLLM's alone
_OF_A_TURN = frozenset((*_PROMPTS, *_INPUTS, *_OUTPUTS, "requeue_delay"))


@dataclass(frozen=True)
class GuideLLMImporter:
    """Recognised by its count or time columns; a system prompt becomes a system message."""

    name: str = "guidellm"

    def recognises(self, path: Path) -> bool:
        first = first_row(path)
        if first is None:
            return False
        names = {name.rpartition("_")[0] if name[-1:].isdecimal() else name for name in first}
        return bool(MARKS & names) and any(name in names for name in (*_PROMPTS, "conversation_turns"))

    def read(self, path: Path, *, tokenizer: TokenCounter | None = None, repairs: Repairs = NO_REPAIRS) -> Imported:
        losses: list[str] = []
        metadata = conversation_metadata(path, self.name, tokenizer)
        return Imported(requests=_requests(path, tokenizer, losses, repairs), metadata=metadata, losses=losses)


def _requests(path: Path, tokenizer: TokenCounter | None, losses: list[str], repairs: Repairs) -> Iterator[Request]:
    num_timeless = num_uncounted = num_later = 0
    for number, (line, row) in enumerate(read_rows(path, repairs)):
        with repairs.row(path, line):  # turns after one that cannot be read hang in the air: they go with it
            turns = _turns(Cells(path, line, row, repairs))
            for request in _row_requests(number, row, turns, tokenizer):
                num_later += bool(request.turn)
                num_timeless += request.arrival_s is None and not request.turn
                num_uncounted += None in (request.input_tokens, request.output_tokens)
                yield request
    if num_timeless:
        losses.append(f"{num_timeless} rows have no relative_timestamp: replay with a fixed concurrency")
    if num_later:
        losses.append(f"{num_later} later turns do not hold the answers before them: the file has none")
    if num_uncounted:
        losses.append(f"{num_uncounted} turns lack a token count")


def _turns(cells: Cells) -> list[Cells]:
    """The turns of a row: a list of texts or objects, columns with the turn's number at the end, or the row itself."""
    given = parsed(cells.row.get("conversation_turns"))
    if isinstance(given, list) and given:
        turns = [{"prompt": turn} if isinstance(turn, str) else turn for turn in given]
        if not all(isinstance(turn, dict) for turn in turns):
            raise cells.misfit("conversation_turns", "Give a list of texts, or of objects with a prompt")
        return [replace(cells, row=turn) for turn in turns]
    numbered: dict[int, dict[str, Any]] = {}
    for name, value in cells.row.items():
        stem, _, number = name.rpartition("_")
        if number.isdecimal() and stem in _OF_A_TURN:
            numbered.setdefault(int(number), {})[stem] = value
    if not numbered:
        if given is not None and given != 1:
            raise cells.misfit("conversation_turns", "Give the turns as a list, or in columns prompt_0, prompt_1, ...")
        return [cells]
    if _first(cells.row, _PROMPTS) is not None:  # the first turn's columns have no number
        numbered[-1] = {name: value for name, value in cells.row.items() if name in _OF_A_TURN}
    return [replace(cells, row=numbered[number]) for number in sorted(numbered)]


def _row_requests(
    number: int, row: Mapping[str, Any], turns: list[Cells], tokenizer: TokenCounter | None
) -> Iterator[Request]:
    """A request a turn, each with the user's turns before it; the counts of a turn are of its own words."""
    system, tools = _first(row, _SYSTEMS), parsed(_first(row, _TOOLS))
    sent: list[dict[str, str]] = [{"role": "system", "content": system}] if isinstance(system, str) else []
    before: int | None = 0
    for turn, cells in enumerate(turns):
        prompt = _first(cells.row, _PROMPTS)
        if not isinstance(prompt, str):
            raise cells.misfit("prompt", "Give every turn a prompt text")
        sent.append({"role": "user", "content": prompt})
        own = _count(cells, _INPUTS)
        inputs = None if own is None or before is None else before + own
        before = inputs
        if inputs is None and tokenizer is not None:
            inputs = tokenizer.count(tokenizer.chat_text(sent))
        first = cells if "relative_timestamp" in cells.row else replace(cells, row=row)
        several = len(turns) > 1
        yield Request(
            request_id=f"{number}#{turn}" if several else str(number),
            arrival_s=None if turn else first.number("relative_timestamp", least=0),
            session_id=str(number) if several else None,
            turn=turn if several else None,
            parent_ids=(f"{number}#{turn - 1}",) if turn else (),
            think_s=cells.spare_number("requeue_delay") if turn else None,
            input_tokens=inputs or None,
            output_tokens=_count(cells, _OUTPUTS),
            messages=json_text(sent),
            tools=json_text(tools) if isinstance(tools, list) and tools else None,
        )


def _count(cells: Cells, names: tuple[str, ...]) -> int | None:
    return next((count for name in names if (count := cells.count(name)) is not None), None)


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)
