"""`Request`: one recorded request, a row of the workload; `Check`: one way to score its answer.

Does not know how it is sent or scored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


def json_text(value: object) -> str:
    """JSON as the workload's JSON columns hold it: compact, not escaped beyond need, key order kept."""
    return _ENCODER.encode(value)


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One check of a response: `spec` is JSON text whose form depends on `kind` (see `workloads/checks.py`)."""

    kind: str
    spec: str
    weight: float = 1.0  # stored as float32


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request; every field is a column of `WORKLOAD_SCHEMA` and None means the source did not say.

    `messages`, `tools`, `response_format`, `extra_body` and `extra` are JSON text (`json_text` makes it).
    """

    request_id: str
    arrival_s: float | None = None  # since the first request
    session_id: str | None = None
    turn: int | None = None  # 0-based order in the session
    parent_ids: tuple[str, ...] = ()  # requests that must finish first
    think_s: float | None = None  # between the parents' end and this request
    model: str | None = None
    adapter: str | None = None
    tenant: str | None = None
    slo_class: str | None = None
    priority: int | None = None  # lower first
    input_tokens: int | None = None  # after the chat template
    output_tokens: int | None = None  # reasoning included
    cached_tokens: int | None = None
    prompt: str | None = None
    messages: str | None = None
    tools: str | None = None
    prompt_token_ids: tuple[int, ...] | None = None
    response_token_ids: tuple[int, ...] | None = None
    prefix_hashes: tuple[int, ...] | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    response_format: str | None = None
    extra_body: str | None = None
    response: str | None = None
    status: str | None = None  # ok, error, cancelled, timeout
    finish_reason: str | None = None
    ttft_s: float | None = None  # on the source system
    e2el_s: float | None = None  # on the source system
    checks: tuple[Check, ...] = ()
    extra: str | None = None

    def chat_messages(self) -> list[dict[str, Any]]:
        """The OpenAI-form messages, parsed; empty when the request has none."""
        return list(json.loads(self.messages)) if self.messages is not None else []
