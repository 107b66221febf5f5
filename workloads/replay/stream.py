"""Reads a streamed answer: server-sent events to token times, cheaply.

Does not know connections, clocks or what was asked: it is given bytes and the time they came.
"""

from __future__ import annotations

import json
from typing import Any

_TOKEN_IDS = b'"token_ids":['
_UNFINISHED = b'"finish_reason":null'


class EventParser:
    """Splits a byte stream into the payloads of its `data:` lines."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Payloads of the lines that these bytes complete; comments and other fields are skipped."""
        lines = (self._rest + data if self._rest else data).split(b"\n")
        self._rest = lines.pop()
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]


class AnswerStream:
    """What one answer has said so far; `keep_text` also keeps the words."""

    __slots__ = (
        "_chunk_times",
        "_keep_text",
        "_num_tokens",
        "_parser",
        "done",
        "error",
        "finish_reason",
        "has_token_ids",
        "last_s",
        "text",
        "token_ids",
        "tool_calls",
        "usage",
    )

    def __init__(self, *, keep_text: bool) -> None:
        self._parser = EventParser()
        self._keep_text = keep_text
        self._chunk_times: list[float] = []
        self._num_tokens: list[int] = []  # of each chunk that brought any
        self.has_token_ids = False
        self.done = False
        self.last_s: float | None = None  # when the last event came
        self.finish_reason: str | None = None
        self.usage: dict[str, Any] = {}
        self.error: str | None = None
        self.text: list[str] = []
        self.token_ids: list[int] = []
        self.tool_calls: dict[int, dict[str, str]] = {}

    def feed(self, data: bytes, now: float) -> None:
        """Take bytes that came at `now`."""
        for payload in self._parser.feed(data):
            self.last_s = now
            if payload == b"[DONE]":
                self.done = True
            elif self._keep_text or not self._scan(payload, now):
                self._parse(payload, now)

    def _scan(self, payload: bytes, now: float) -> bool:
        """Count an unfinished chunk's tokens without parsing it: in JSON these keys cannot occur inside a string."""
        start = payload.find(_TOKEN_IDS)
        if start < 0 or _UNFINISHED not in payload:
            return False
        start += len(_TOKEN_IDS)
        end = payload.find(b"]", start)
        if end < 0:
            return False
        self.has_token_ids = True
        self._add(payload.count(b",", start, end) + 1 if end > start else 0, now)
        return True

    def _parse(self, payload: bytes, now: float) -> None:
        try:
            chunk = json.loads(payload)
        except ValueError:
            self.error = "the stream holds an event that is not JSON"
            return
        if not isinstance(chunk, dict):
            self.error = "the stream holds an event that is not a JSON object"
            return
        if chunk.get("error"):
            self.error = error_message(chunk)
        usage = chunk.get("usage")
        self.usage = usage if isinstance(usage, dict) else self.usage
        try:
            for choice in (chunk.get("choices") or ())[:1]:
                self._take(choice, now)
        except (AttributeError, TypeError):
            self.error = "the stream holds an event that is not in OpenAI's form"

    def _take(self, choice: dict[str, Any], now: float) -> None:
        delta = choice.get("delta") or {}
        text = choice.get("text") or delta.get("content") or ""
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        calls = delta.get("tool_calls") or ()
        ids = choice.get("token_ids")
        if ids is not None:
            self.has_token_ids = True
            self._add(len(ids), now)
        else:
            self._add(1 if text or reasoning or calls else 0, now)
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        if self._keep_text:
            self.text.append(text)
            self.token_ids += ids or ()
            for call in calls:
                self._join_call(call)

    def _join_call(self, part: dict[str, Any]) -> None:
        call = self.tool_calls.setdefault(part.get("index", 0), {"name": "", "arguments": ""})
        function = part.get("function") or {}
        call["name"] += function.get("name") or ""
        call["arguments"] += function.get("arguments") or ""

    def _add(self, num_tokens: int, now: float) -> None:
        if num_tokens:
            self._chunk_times.append(now)
            self._num_tokens.append(num_tokens)

    @property
    def first_token_s(self) -> float | None:
        return self._chunk_times[0] if self._chunk_times else None

    @property
    def prompt_tokens(self) -> int | None:
        """What the server counted."""
        count = self.usage.get("prompt_tokens")
        return count if isinstance(count, int) else None

    @property
    def is_estimated(self) -> bool:
        """Whether chunks and tokens differ in number without ids to tell which chunk brought how many."""
        total = self.usage.get("completion_tokens")
        return not self.has_token_ids and isinstance(total, int) and total != sum(self._num_tokens)

    def token_times(self) -> tuple[float, ...]:
        """One time a token; where only the total is known the tokens are spread evenly over the chunks."""
        if self.is_estimated and self._chunk_times:
            total, chunks = self.usage["completion_tokens"], len(self._chunk_times)
            return tuple(self._chunk_times[token * chunks // total] for token in range(total))
        pairs = zip(self._chunk_times, self._num_tokens, strict=True)
        return tuple(when for when, count in pairs for _ in range(count))


def error_message(body: Any) -> str:
    """What an OpenAI-form or FastAPI error body says went wrong, without the input that some servers repeat."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or "unknown error"
    if isinstance(error, list) and error and isinstance(error[0], dict):
        error = f"{'.'.join(str(part) for part in error[0].get('loc', ()))}: {error[0].get('msg', 'invalid')}"
    return str(error).split("'input'")[0][:200]
