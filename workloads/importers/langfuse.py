"""Langfuse exports of observations and scores: JSON Lines, JSON, CSV or parquet; `GENERATION` rows are the model calls.

Does not know how calls are linked (`logged_calls.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workloads.importers.cells import Cells, iso_time
from workloads.importers.importer import Imported, source_of
from workloads.importers.logged_calls import kept_messages, linked
from workloads.importers.openai_shapes import Message, body_fields, reply_text
from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.importers.rows import first_row, parsed, read_rows
from workloads.importers.session_links import LoggedCall
from workloads.metadata import WorkloadMetadata
from workloads.request import Request, json_text
from workloads.tokenizer import TokenCounter


@dataclass(frozen=True)
class LangfuseImporter:
    """Rows with `id`, `trace_id`, `type`, `start_time`, `usage_details`, `input`, `output`."""

    name: str = "langfuse"

    def recognises(self, path: Path) -> bool:
        first = first_row(path)
        return first is not None and {"id", "trace_id", "type", "start_time"} <= first.keys()

    def read(self, path: Path, *, tokenizer: TokenCounter | None = None, repairs: Repairs = NO_REPAIRS) -> Imported:
        return self.read_all([path], tokenizer=tokenizer, repairs=repairs)

    def read_all(
        self,
        paths: Sequence[Path],
        *,
        tokenizer: TokenCounter | None = None,  # noqa: ARG002
        repairs: Repairs = NO_REPAIRS,
    ) -> Imported:
        losses: list[str] = []
        given = [Cells(path, line, row, repairs) for path in paths for line, row in read_rows(path, repairs)]
        scores = _Scores([cells for cells in given if _is_score(cells.row)])
        rows = [cells for cells in given if not _is_score(cells.row)]
        generations = [cells for cells in rows if cells.row.get("type") == "GENERATION"]
        calls = list(repairs.made(generations, lambda cells: _call(cells, scores)))
        if len(generations) < len(rows):
            losses.append(f"{len(rows) - len(generations)} observations are no generations: their time is think time")
        if num_stray := scores.num_stray({str(cells.row.get(name)) for cells in rows for name in ("id", "trace_id")}):
            losses.append(f"{num_stray} scores belong to no observation here: dropped")
        start = min((call.start_s for call in calls if call.start_s is not None), default=None)
        metadata = WorkloadMetadata(name=paths[0].stem, source=source_of(paths, self.name), start_time=iso_time(start))
        return Imported(requests=linked(calls, losses), metadata=metadata, losses=losses)


def _is_score(row: Mapping[str, Any]) -> bool:
    """A row of the scores' export: a name and a value for a trace or an observation."""
    valued = "value" in row or "string_value" in row
    return valued and "name" in row and "start_time" not in row and ("trace_id" in row or "observation_id" in row)


class _Scores:
    """Scores by what they judge. They judge the recorded answers, so they are kept with them and are no checks."""

    def __init__(self, rows: Sequence[Cells]) -> None:
        self._found: dict[str, dict[str, Any]] = {}
        for cells in rows:
            judged = cells.row.get("observation_id") or cells.row.get("trace_id")
            value = cells.row.get("value", cells.row.get("string_value"))
            self._found.setdefault(str(judged), {})[str(cells.row["name"])] = value

    def num_stray(self, names: set[str]) -> int:
        """Scores of none of these observations and traces."""
        return sum(len(scores) for judged, scores in self._found.items() if judged not in names)

    def extra(self, row: Mapping[str, Any]) -> str | None:
        """The scores of an observation and of its trace, as JSON."""
        scores, of_trace = (self._found.get(str(row.get(name))) for name in ("id", "trace_id"))
        kept = {"scores": scores, "trace_scores": of_trace}
        found = {name: value for name, value in kept.items() if value}
        return json_text(found) if found else None


def _call(cells: Cells, scores: _Scores) -> LoggedCall:
    row = cells.row
    start, end = cells.stamp("start_time"), cells.stamp("end_time")
    usage = replace(cells, row=_object(row.get("usage_details")))
    messages = _messages(parsed(row.get("input")))
    reply = _reply(parsed(row.get("output")))
    latency = cells.spare_number("latency")
    if latency is None and start is not None and end is not None:
        latency = max(0.0, end - start)
    body = _object(row.get("model_parameters")) | {"model": row.get("provided_model_name")}
    tools = parsed(row.get("tool_definitions"))
    request = Request(
        request_id=str(row.get("id") or f"line-{cells.line}"),
        input_tokens=usage.count("input") or None,
        output_tokens=usage.count("output"),
        cached_tokens=usage.spare_count("input_cached_tokens"),
        messages=kept_messages(messages),
        response=reply_text(reply) if reply else None,
        status="error" if row.get("level") == "ERROR" else "ok",
        ttft_s=cells.spare_number("time_to_first_token"),
        e2el_s=latency,
        extra=scores.extra(row),
        **body_fields(body | ({"tools": tools} if isinstance(tools, list) and tools else {})),
    )
    session = row.get("session_id") or row.get("trace_id")
    return LoggedCall(
        request=request,
        start_s=start,
        end_s=end,
        session=str(session) if session else None,
        messages=messages,
        reply=reply,
        reply_text=request.response,
    )


def _object(value: object) -> dict[str, Any]:
    found = parsed(value)
    return dict(found) if isinstance(found, dict) else {}


def _messages(value: object) -> list[Message]:
    """Langfuse stores whatever was traced: a list of messages, `{"messages": [...]}`, or a plain text."""
    if isinstance(value, dict):
        value = value.get("messages")
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    return [item for item in value if isinstance(item, dict) and "role" in item] if isinstance(value, list) else []


def _reply(value: object) -> Message | None:
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, str):
        return {"role": "assistant", "content": value}
    return {"role": "assistant"} | value if isinstance(value, dict) and "content" in value else None
