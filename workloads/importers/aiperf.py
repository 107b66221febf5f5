"""AIPerf `single_turn` and `multi_turn` JSON Lines: user texts with a time or a delay, in ms.

Does not know answers: later turns' prompts hold the user's turns alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workloads.errors import WorkloadError, line_place
from workloads.importers.cells import Cells
from workloads.importers.guidellm import MARKS
from workloads.importers.importer import Imported
from workloads.importers.json_lines import first_object, json_lines
from workloads.importers.openai_shapes import Message
from workloads.importers.recorded_turns import conversation_metadata
from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.importers.rows import Row
from workloads.request import Request, json_text
from workloads.tokenizer import TokenCounter

_MEDIA = ("image", "images", "audio", "audios", "video", "videos")
_TEXT = ("text", "texts")


@dataclass(frozen=True)
class AiperfImporter:
    """`{text, timestamp | delay, role?, output_length?}` a line, or `{session_id, turns: [...]}`."""

    name: str = "aiperf"

    def recognises(self, path: Path) -> bool:
        first = first_object(path)
        if first is None or MARKS & first.keys():
            return False
        return isinstance(first.get("turns"), list) or isinstance(first.get("text", first.get("texts")), str | list)

    def read(self, path: Path, *, tokenizer: TokenCounter | None = None, repairs: Repairs = NO_REPAIRS) -> Imported:
        losses: list[str] = []
        metadata = conversation_metadata(path, self.name, tokenizer)
        return Imported(requests=_requests(path, tokenizer, losses, repairs), metadata=metadata, losses=losses)


def _requests(path: Path, tokenizer: TokenCounter | None, losses: list[str], repairs: Repairs) -> Iterator[Request]:
    num_media = num_later = num_open = 0
    for line, row in json_lines(path, repairs):
        with repairs.row(path, line):  # turns after one that cannot be read hang in the air: they go with it
            session, given = _turns(path, line, row)
            sent: list[Message] = []
            parent: str | None = None
            for number, turn in enumerate(given):
                cells = Cells(path, line, turn, repairs)
                num_media += any(turn.get(name) for name in _MEDIA)
                sent.append({"role": turn.get("role") or "user", "content": _text(cells)})
                request = _request(cells, session, number, sent, parent, tokenizer)
                num_later, num_open = num_later + (number > 0), num_open + (request.output_tokens is None)
                yield request
                parent = request.request_id
    if num_later:
        losses.append(f"{num_later} later turns do not hold the answers before them: the file has none")
    if num_open:
        losses.append(f"{num_open} turns have no output length")
    if num_media:
        losses.append(f"the images, audio or video of {num_media} turns were left out")


def _turns(path: Path, line: int, row: Row) -> tuple[str | None, list[Row]]:
    if "turns" not in row:
        return None, [row]
    given = row["turns"]
    if not isinstance(given, list) or not all(isinstance(turn, dict) for turn in given):
        fix = 'Give each session "turns": [{"text": ...}]'
        raise WorkloadError("turns are no list of objects", place=line_place(path, line, "turns"), fix=fix)
    return str(row.get("session_id") or f"line-{line}"), given


def _text(cells: Cells) -> str:
    value: Any = next((cells.row[name] for name in _TEXT if cells.row.get(name) is not None), None)
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise cells.misfit("text", "Give every turn a text")
    return "\n".join(texts)


def _request(
    cells: Cells,
    session: str | None,
    number: int,
    sent: list[Message],
    parent: str | None,
    tokenizer: TokenCounter | None,
) -> Request:
    stamp, delay = cells.number("timestamp", least=0), cells.spare_number("delay")
    inputs = cells.count("input_length")
    if inputs is None and tokenizer is not None:
        inputs = tokenizer.count(tokenizer.chat_text(sent))
    return Request(
        request_id=f"{session}#{number}" if session is not None else str(cells.line),
        arrival_s=None if stamp is None else stamp / 1000,
        session_id=session,
        turn=number if session is not None else None,
        parent_ids=(parent,) if parent else (),
        think_s=None if delay is None or parent is None else delay / 1000,
        model=cells.row.get("model"),
        input_tokens=inputs or None,
        output_tokens=cells.count("output_length"),
        messages=json_text(sent),
    )
