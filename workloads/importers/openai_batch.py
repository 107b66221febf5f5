"""OpenAI batch files: the requests (`custom_id, method, url, body`) and, in a second file, their responses.

Does not know when anything was sent: batches are an offline class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workloads.errors import WorkloadError, line_place
from workloads.importers.importer import Imported, source_of
from workloads.importers.json_lines import first_object, json_lines
from workloads.importers.openai_shapes import body_fields, parse_reply, sent_messages
from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.metadata import WorkloadMetadata
from workloads.request import Request, json_text
from workloads.tokenizer import TokenCounter


@dataclass(frozen=True)
class OpenAIBatchImporter:
    """Give both files, in any order, or the requests alone; they are joined on `custom_id`."""

    name: str = "openai-batch"

    def recognises(self, path: Path) -> bool:
        first = first_object(path)
        return first is not None and "custom_id" in first and ("body" in first or "response" in first)

    def read(self, path: Path, *, tokenizer: TokenCounter | None = None, repairs: Repairs = NO_REPAIRS) -> Imported:
        return self.read_all([path], tokenizer=tokenizer, repairs=repairs)

    def read_all(
        self,
        paths: Sequence[Path],
        *,
        tokenizer: TokenCounter | None = None,  # noqa: ARG002
        repairs: Repairs = NO_REPAIRS,
    ) -> Imported:
        asked: dict[str, tuple[Path, int, Mapping[str, Any]]] = {}
        answered: dict[str, Mapping[str, Any]] = {}
        for path in paths:
            for line, row in json_lines(path, repairs):
                with repairs.row(path, line):
                    _sort(path, line, row, asked, answered)
        losses = ["a batch has no arrivals: replay with a fixed concurrency"]
        if not asked:
            fix = "Give the batch's input file too"
            raise WorkloadError("only answers, no requests", place=line_place(paths[0], 1, "body"), fix=fix)
        if stray := answered.keys() - asked.keys():
            losses.append(f"{len(stray)} answers belong to no request: dropped")
        if missing := asked.keys() - answered.keys():
            losses.append(f"{len(missing)} requests have no answer: their lengths are unknown")
        metadata = WorkloadMetadata(name=paths[0].stem, source=source_of(paths, self.name))
        return Imported(requests=_requests(asked, answered, repairs), metadata=metadata, losses=losses)


def _sort(
    path: Path,
    line: int,
    row: Mapping[str, Any],
    asked: dict[str, tuple[Path, int, Mapping[str, Any]]],
    answered: dict[str, Mapping[str, Any]],
) -> None:
    name = row.get("custom_id")
    if not isinstance(name, str):
        raise WorkloadError("no custom_id", place=line_place(path, line, "custom_id"), fix="Give every line its id")
    body = row.get("body")
    if body is None and "response" in row:
        answered[name] = row
        return
    if not isinstance(body, dict):
        raise WorkloadError("no body object", place=line_place(path, line, "body"), fix="Give the request's body")
    if name in asked:
        fix = "Make the custom_ids unique"
        raise WorkloadError(f"custom_id {name!r:.40} occurs twice", place=line_place(path, line, "custom_id"), fix=fix)
    asked[name] = (path, line, row)


def _requests(
    asked: Mapping[str, tuple[Path, int, Mapping[str, Any]]],
    answered: Mapping[str, Mapping[str, Any]],
    repairs: Repairs,
) -> Iterator[Request]:
    for name, (path, line, row) in asked.items():
        with repairs.row(path, line):
            yield _request(name, row, answered.get(name))


def _request(name: str, row: Mapping[str, Any], answer: Mapping[str, Any] | None) -> Request:
    response = (answer or {}).get("response") or {}
    reply = parse_reply(response.get("body") if isinstance(response, dict) else None)
    messages, prompt = sent_messages(row["body"]), row["body"].get("prompt")
    return Request(
        request_id=name,
        slo_class="offline",
        input_tokens=reply.usage.input_tokens or None,
        output_tokens=reply.usage.output_tokens,
        cached_tokens=reply.usage.cached_tokens,
        messages=json_text(messages) if messages else None,
        prompt=prompt if isinstance(prompt, str) else None,
        response=reply.text,
        status=None if answer is None else "ok" if reply.text is not None else "error",
        finish_reason=reply.finish_reason,
        extra=json_text({"url": row.get("url")}) if row.get("url") else None,
        **body_fields(row["body"]),
    )
