"""LiteLLM spend logs and standard logging payloads: JSON Lines, a JSON array, CSV or parquet of gateway calls.

Does not know how calls are linked (`logged_calls.py`). Calls the gateway's cache answered never reached an engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workloads.importers.call_import import imported_whole
from workloads.importers.cells import Cells, iso_time
from workloads.importers.importer import Imported, source_of
from workloads.importers.logged_calls import kept_messages
from workloads.importers.openai_shapes import body_fields, parse_reply, sent_messages
from workloads.importers.otel_spans import hashed
from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.importers.rows import first_row, parsed, read_rows
from workloads.importers.session_links import LoggedCall
from workloads.metadata import WorkloadMetadata
from workloads.request import Request, json_text
from workloads.tokenizer import TokenCounter


@dataclass(frozen=True)
class LiteLLMImporter:
    """Rows with `call_type`, `startTime`, `endTime`, `prompt_tokens`, `completion_tokens`."""

    name: str = "litellm"

    def recognises(self, path: Path) -> bool:
        first = first_row(path)
        return first is not None and {"call_type", "startTime", "prompt_tokens"} <= first.keys()

    def read(self, path: Path, *, tokenizer: TokenCounter | None = None, repairs: Repairs = NO_REPAIRS) -> Imported:
        return imported_whole(self, [path], tokenizer, repairs)

    def calls(
        self,
        paths: Sequence[Path],
        losses: list[str],
        tokenizer: TokenCounter | None,  # noqa: ARG002
        repairs: Repairs,
    ) -> Iterator[LoggedCall]:
        num_cached = num_bare = 0
        for path in paths:
            for line, row in read_rows(path, repairs):
                if str(row.get("cache_hit")).lower() == "true":
                    num_cached += 1
                    continue
                with repairs.row(path, line):
                    call = _call(Cells(path, line, row, repairs))
                    num_bare += not call.messages
                    yield call
        if num_cached:
            losses.append(f"{num_cached} calls were answered by the gateway's cache: dropped from the load")
        if num_bare:
            losses.append("some calls have no messages (the gateway did not store prompts): only lengths are known")

    def metadata(
        self,
        paths: Sequence[Path],
        start_s: float | None,
        tokenizer: TokenCounter | None,  # noqa: ARG002
    ) -> WorkloadMetadata:
        return WorkloadMetadata(name=paths[0].stem, source=source_of(paths, self.name), start_time=iso_time(start_s))


def _call(cells: Cells) -> LoggedCall:
    row = cells.row
    start, end, first = (cells.stamp(name) for name in ("startTime", "endTime", "completionStartTime"))
    details = parsed(row.get("metadata"))
    details = details if isinstance(details, dict) else {}
    body = _body(row)
    messages = sent_messages(body) or []
    response = parsed(row.get("response"))
    reply = parse_reply(response if isinstance(response, dict) else None)
    failed = row.get("status") not in (None, "success") or bool(row.get("error_str"))
    request = Request(
        request_id=str(row.get("request_id") or row.get("id") or f"line-{cells.line}"),
        tenant=hashed(row.get("team_id") or details.get("user_api_key_team_id") or row.get("end_user")),
        input_tokens=cells.count("prompt_tokens") or None,
        output_tokens=cells.count("completion_tokens"),
        cached_tokens=reply.usage.cached_tokens,
        messages=kept_messages(messages),
        response=reply.text,
        status="error" if failed else "ok",
        finish_reason=reply.finish_reason,
        ttft_s=max(0.0, first - start) if first is not None and start is not None and first != end else None,
        e2el_s=max(0.0, end - start) if end is not None and start is not None else None,
        extra=json_text({"request_tags": tags}) if (tags := parsed(row.get("request_tags"))) else None,
        **body_fields(body),
    )
    session = row.get("session_id") or row.get("trace_id") or details.get("session_id")
    return LoggedCall(
        request=request,
        start_s=start,
        end_s=end,
        session=str(session) if session else None,
        messages=messages,
        reply=reply.message,
        reply_text=reply.text,
    )


def _body(row: Mapping[str, Any]) -> dict[str, Any]:
    """The request body as far as the log has it."""
    proxied, parameters = parsed(row.get("proxy_server_request")), parsed(row.get("model_parameters"))
    body = dict(parameters) if isinstance(parameters, dict) else dict(proxied) if isinstance(proxied, dict) else {}
    messages = parsed(row.get("messages"))
    if isinstance(messages, list):
        body["messages"] = messages
    return body | {"model": row.get("model_group") or row.get("model")}
