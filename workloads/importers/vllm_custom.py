"""`vllm bench serve --dataset-name custom`: JSON Lines of `{"prompt": ..., "output_tokens"?: n}`.

Does not know arrivals: the format has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workloads.errors import WorkloadError, line_place
from workloads.importers.guidellm import MARKS
from workloads.importers.importer import Imported, source_of
from workloads.importers.json_lines import count_in, first_object, json_lines
from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.metadata import WorkloadMetadata
from workloads.request import Request, json_text
from workloads.tokenizer import TokenCounter


@dataclass(frozen=True)
class VllmCustomImporter:
    """One prompt a line."""

    name: str = "vllm-custom"

    def recognises(self, path: Path) -> bool:
        first = first_object(path)
        return first is not None and isinstance(first.get("prompt"), str) and not {"request", *MARKS} & first.keys()

    def read(self, path: Path, *, tokenizer: TokenCounter | None = None, repairs: Repairs = NO_REPAIRS) -> Imported:
        metadata = WorkloadMetadata(
            name=path.stem,
            source=source_of(path, self.name),
            tokenizer=str(tokenizer.folder) if tokenizer else None,
            vocab_size=tokenizer.vocab_size if tokenizer else None,
        )
        losses = [
            "the format has no arrivals: replay with a fixed concurrency",
            "prompts are sent as they are; vllm bench serve applies the chat template unless --skip-chat-template",
        ]
        return Imported(requests=_requests(path, tokenizer, losses, repairs), metadata=metadata, losses=losses)


def _requests(path: Path, tokenizer: TokenCounter | None, losses: list[str], repairs: Repairs) -> Iterator[Request]:
    num_open = 0
    for row, (line, value) in enumerate(json_lines(path, repairs)):
        with repairs.row(path, line):
            request = _request(row, value, path, line, tokenizer)
            num_open += request.output_tokens is None
            yield request
    if tokenizer is None:
        losses.append("input_tokens are unknown: import with --tokenizer DIR to count them")
    if num_open:
        losses.append(f"{num_open} requests have no output_tokens (vllm bench serve would take 256)")


def _request(row: int, value: dict[str, Any], path: Path, line: int, tokenizer: TokenCounter | None) -> Request:
    prompt = value.get("prompt")
    if not isinstance(prompt, str):
        fix = 'Give every line a "prompt" text'
        raise WorkloadError("no prompt", place=line_place(path, line, "prompt"), fix=fix)
    rest = {name: item for name, item in value.items() if name not in ("prompt", "output_tokens")}
    return Request(
        request_id=str(row),
        prompt=prompt,
        input_tokens=len(tokenizer.ids(prompt, special=True)) or None if tokenizer else None,
        output_tokens=count_in(value, "output_tokens", path, line),
        extra=json_text(rest) if rest else None,
    )
