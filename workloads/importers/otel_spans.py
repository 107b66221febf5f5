"""OpenTelemetry GenAI spans: OTLP/JSON exports and flat span files, names before and after semconv 1.37, vLLM's too.

Does not know how calls are linked (`logged_calls.py`). Spans that are no model call are left out and counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workloads.errors import WorkloadError, line_place
from workloads.importers.call_import import imported_whole
from workloads.importers.cells import Cells, iso_time
from workloads.importers.importer import Imported, source_of
from workloads.importers.logged_calls import kept_messages
from workloads.importers.openai_shapes import Message, reply_text
from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.importers.rows import Row, first_row, parsed, read_rows
from workloads.importers.session_links import LoggedCall
from workloads.metadata import WorkloadMetadata
from workloads.request import Request, json_text
from workloads.tokenizer import TokenCounter

_CALLS = frozenset(("chat", "generate_content", "text_completion", "llm_request"))
_SESSIONS = ("gen_ai.conversation.id", "exgentic.session.id", "session.id")
_OLD_MESSAGES = {f"gen_ai.{role}.message": role for role in ("system", "user", "assistant", "tool")}
_SAMPLING = {"temperature": float, "top_p": float, "max_tokens": int, "seed": int}


@dataclass(frozen=True)
class OtelSpansImporter:
    """`{"resourceSpans": ...}` or `{"trace_id", "spans": [...]}`, one object a file or a line."""

    name: str = "otel"

    def recognises(self, path: Path) -> bool:
        first = first_row(path)
        return first is not None and (isinstance(first.get("resourceSpans"), list) or _is_flat(first))

    def read(self, path: Path, *, tokenizer: TokenCounter | None = None, repairs: Repairs = NO_REPAIRS) -> Imported:
        return self.read_all([path], tokenizer=tokenizer, repairs=repairs)

    def read_all(
        self, paths: Sequence[Path], *, tokenizer: TokenCounter | None = None, repairs: Repairs = NO_REPAIRS
    ) -> Imported:
        return imported_whole(self, paths, tokenizer, repairs)

    def calls(
        self, paths: Sequence[Path], losses: list[str], tokenizer: TokenCounter | None, repairs: Repairs
    ) -> Iterator[LoggedCall]:
        num_others = num_uncounted = 0
        for path in paths:
            for line, row in read_rows(path, repairs):
                for span in _spans(path, line, row, repairs):
                    if not _is_call(span.attributes):
                        num_others += 1
                        continue
                    with repairs.row(path, line):
                        call = _call(span, tokenizer)
                        num_uncounted += None in (call.request.input_tokens, call.request.output_tokens)
                        yield call
        if num_others:
            losses.append(f"{num_others} spans are no model calls (tools, agents): their time is think time")
        if num_uncounted:
            losses.append(f"{num_uncounted} spans have no usage: import with --tokenizer DIR to count tokens")

    def metadata(
        self, paths: Sequence[Path], start_s: float | None, tokenizer: TokenCounter | None
    ) -> WorkloadMetadata:
        return WorkloadMetadata(
            name=paths[0].stem if len(paths) == 1 else paths[0].parent.name,
            source=source_of(paths, self.name),
            start_time=iso_time(start_s),
            tokenizer=str(tokenizer.folder) if tokenizer else None,
            vocab_size=tokenizer.vocab_size if tokenizer else None,
        )


def _is_flat(row: Row) -> bool:
    spans = row.get("spans")
    return isinstance(spans, list) and bool(spans) and isinstance(spans[0], dict) and "attributes" in spans[0]


@dataclass(frozen=True)
class _Span:
    """A span in one form: ids, times in s, attributes as plain values."""

    span_id: str
    trace_id: str
    start_s: float | None
    end_s: float | None
    attributes: Mapping[str, Any]
    events: Sequence[tuple[str, Mapping[str, Any]]]
    failed: bool


def _spans(path: Path, line: int, row: Row, repairs: Repairs) -> Iterator[_Span]:
    found: list[Any] = []
    with repairs.row(path, line):
        found = _all_spans(path, line, row)
    for span in found:
        with repairs.row(path, line):
            yield _span(path, line, span)


def _all_spans(path: Path, line: int, row: Row) -> list[Any]:
    if isinstance(row.get("resourceSpans"), list):
        scopes = [scope for resource in row["resourceSpans"] for scope in resource.get("scopeSpans") or ()]
        return [span for scope in scopes for span in scope.get("spans") or ()]
    if isinstance(row.get("spans"), list):
        return list(row["spans"])
    fix = "Give an OTLP/JSON export or a file of spans"
    raise WorkloadError("no spans", place=line_place(path, line, "spans"), fix=fix)


def _span(path: Path, line: int, span: Any) -> _Span:
    if not isinstance(span, dict):
        raise WorkloadError(
            "a span is not an object", place=line_place(path, line, "spans"), fix="Export the spans again"
        )
    cells = Cells(path, line, span)
    nanos = "startTimeUnixNano" in span
    status = span.get("status") or {}
    return _Span(
        span_id=str(span.get("spanId") or span.get("span_id") or f"line-{line}"),
        trace_id=str(span.get("traceId") or span.get("trace_id") or ""),
        start_s=_seconds(cells, "startTimeUnixNano") if nanos else cells.stamp("start_time"),
        end_s=_seconds(cells, "endTimeUnixNano") if nanos else cells.stamp("end_time"),
        attributes=_plain_map(span.get("attributes")),
        events=[(str(e.get("name")), _plain_map(e.get("attributes"))) for e in span.get("events") or ()],
        failed=status.get("code") in (2, "ERROR", "STATUS_CODE_ERROR"),
    )


def _seconds(cells: Cells, name: str) -> float | None:
    nanoseconds = cells.number(name, least=0)
    return None if nanoseconds is None else nanoseconds / 1e9


def _plain_map(attributes: Any) -> dict[str, Any]:
    """A flat map as it is; OTLP's list of key and typed value as a map."""
    if isinstance(attributes, dict):
        return attributes
    return {str(pair.get("key")): _plain(pair.get("value")) for pair in attributes or () if isinstance(pair, dict)}


def _plain(value: Any) -> Any:
    if not isinstance(value, dict) or len(value) != 1:
        return None
    ((kind, content),) = value.items()
    if kind == "arrayValue":
        return [_plain(item) for item in content.get("values") or ()]
    if kind == "kvlistValue":
        return _plain_map(content.get("values"))
    return int(content) if kind == "intValue" else content


def _is_call(attributes: Mapping[str, Any]) -> bool:
    operation = attributes.get("gen_ai.operation.name")
    if operation is not None:
        return str(operation) in _CALLS
    return any(name.startswith(("gen_ai.usage.", "gen_ai.request.", "gen_ai.latency.")) for name in attributes)


def _call(span: _Span, tokenizer: TokenCounter | None) -> LoggedCall:
    given = span.attributes
    messages, tools = _input_messages(span), parsed(given.get("gen_ai.tool.definitions"))
    reply = _reply(span)
    text = reply_text(reply) if reply else None
    finish = given.get("gen_ai.response.finish_reasons") or given.get("gen_ai.response.finish_reason")
    latency = span.end_s - span.start_s if span.end_s is not None and span.start_s is not None else None
    inputs = _first(given, "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
    outputs = _first(given, "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
    if tokenizer is not None and inputs is None and messages:
        inputs = tokenizer.count(tokenizer.chat_text(list(messages), tools if isinstance(tools, list) else None))
    if tokenizer is not None and outputs is None and text is not None:
        outputs = tokenizer.count(text)
    failed = span.failed or given.get("error.type") is not None
    request = Request(
        request_id=str(_first(given, "gen_ai.request.id") or span.span_id),
        model=_first(given, "gen_ai.request.model", "gen_ai.response.model"),
        input_tokens=int(inputs) if inputs else None,
        output_tokens=int(outputs) if outputs is not None else None,
        cached_tokens=_whole(given.get("gen_ai.usage.cache_read.input_tokens")),
        messages=kept_messages(messages),
        tools=json_text(tools) if isinstance(tools, list) and tools else None,
        response=text,
        status="error" if failed else "ok",
        finish_reason=str(finish[0]) if isinstance(finish, list) and finish else finish or None,
        ttft_s=_first(given, "gen_ai.response.time_to_first_chunk", "gen_ai.latency.time_to_first_token"),
        e2el_s=_first(given, "gen_ai.latency.e2e") or (max(0.0, latency) if latency is not None else None),
        extra=_extra(given),
        **_sampling(given),
    )
    session = _first(given, *_SESSIONS) or span.trace_id or None
    return LoggedCall(
        request=request,
        start_s=span.start_s,
        end_s=span.end_s,
        session=str(session) if session else None,
        messages=messages,
        reply=reply,
        reply_text=text,
    )


def _first(given: Mapping[str, Any], *names: str) -> Any:
    return next((given[name] for name in names if given.get(name) is not None), None)


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _sampling(given: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, kind in _SAMPLING.items():
        value = given.get(f"gen_ai.request.{name}")
        if value is not None:
            fields[name] = kind(value)
    stop = given.get("gen_ai.request.stop_sequences")
    return fields | ({"stop": tuple(str(word) for word in stop)} if isinstance(stop, list) and stop else {})


def _input_messages(span: _Span) -> list[Message]:
    given = parsed(span.attributes.get("gen_ai.input.messages"))
    found = [openai_message(item) for item in given if isinstance(item, dict)] if isinstance(given, list) else []
    if not found:
        found = [
            {"role": _OLD_MESSAGES[name], "content": values.get("content")} | _calls_of(values)
            for name, values in span.events
            if name in _OLD_MESSAGES
        ]
    system = parsed(span.attributes.get("gen_ai.system_instructions"))
    if system:
        parts = system if isinstance(system, list) else [{"content": system}]
        words = "".join(str(part.get("content") or "") for part in parts if isinstance(part, dict))
        found = [{"role": "system", "content": words}, *found]
    return found


def _calls_of(values: Mapping[str, Any]) -> Message:
    calls = parsed(values.get("tool_calls"))
    return {"tool_calls": calls} if isinstance(calls, list) and calls else {}


def _reply(span: _Span) -> Message | None:
    given = parsed(span.attributes.get("gen_ai.output.messages"))
    if isinstance(given, list) and given and isinstance(given[0], dict):
        return openai_message({"role": "assistant"} | given[0])
    text = span.attributes.get("gen_ai.output.text")
    if isinstance(text, str):
        return {"role": "assistant", "content": text}
    choice = next((values for name, values in span.events if name == "gen_ai.choice"), None)
    message = parsed(choice.get("message")) if choice else None
    return {"role": "assistant"} | message if isinstance(message, dict) else None


def openai_message(item: Message) -> Message:
    """A message of parts (semconv 1.37 on) in OpenAI form; one that has it already stays."""
    parts = item.get("parts")
    if not isinstance(parts, list):
        return item
    parts = [part for part in parts if isinstance(part, dict)]
    message: Message = {"role": item.get("role")}
    message["content"] = "".join(str(part.get("content") or "") for part in parts if part.get("type") == "text")
    answers = [part for part in parts if part.get("type") == "tool_call_response"]
    if answers:
        answer = answers[0].get("response", answers[0].get("result"))
        words = answer if isinstance(answer, str) else json_text(answer)
        return {"role": "tool", "tool_call_id": answers[0].get("id"), "content": words}
    calls = [part for part in parts if part.get("type") == "tool_call"]
    if calls:
        message["tool_calls"] = [
            {
                "id": part.get("id"),
                "type": "function",
                "function": {"name": part.get("name"), "arguments": _arguments(part.get("arguments"))},
            }
            for part in calls
        ]
    return message


def _arguments(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value)


def _extra(given: Mapping[str, Any]) -> str | None:
    """What has no column; content, which has, and who asked are not repeated."""
    kept = {
        name: value
        for name, value in given.items()
        if name in ("gen_ai.provider.name", "gen_ai.system", "error.type", "gen_ai.usage.reasoning.output_tokens")
    }
    return json_text(kept) if kept else None


def hashed(value: object) -> str | None:
    """Twelve hex digits that stand for a private name."""
    return hashlib.sha256(str(value).encode()).hexdigest()[:12] if value else None
