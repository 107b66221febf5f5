"""OpenAI request and response bodies (chat, completions, responses) as the fields of a `Request`.

Does not know log files: it is given parsed bodies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workloads.request import json_text

Message = dict[str, Any]

_SAMPLING = ("temperature", "top_p", "top_k", "seed")
_HAVE_COLUMNS = frozenset(
    (
        *("messages", "prompt", "input", "instructions", "tools", "model", "stop", "response_format", "priority"),
        *("max_tokens", "max_completion_tokens", "max_output_tokens", *_SAMPLING),
    )
)
# The replay decides these, or they say who asked.
_NOT_KEPT = frozenset(("stream", "stream_options", "user", "metadata", "service_tier", "previous_response_id", "store"))
_THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Token counts as the server reported them; None where it did not."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The first choice of a response body."""

    message: Message | None = None  # as the next turn would carry it
    text: str | None = None  # None when the response has no answer
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    num_choices: int = 0


def sent_messages(body: Mapping[str, Any]) -> list[Message] | None:
    """The messages of a chat or responses body; None for a completions body."""
    messages = body.get("messages")
    if isinstance(messages, list):
        return [message for message in messages if isinstance(message, dict)]
    given = body.get("input")
    if given is None:
        return None
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    converted = [_input_message(item) for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    instructions = body.get("instructions")
    system = [{"role": "system", "content": instructions}] if isinstance(instructions, str) else []
    return system + [message for message in converted if message is not None]


def _input_message(item: Message) -> Message | None:
    """A message item of a responses body; tool outputs become tool messages, other items have no chat form."""
    if item.get("type") == "function_call_output":
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")}
    if "role" not in item:
        return None
    content = item.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return {"role": item["role"], "content": content}


def body_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """Sampling parameters and the rest of a request body as keyword arguments of `Request`."""
    fields: dict[str, Any] = {name: body[name] for name in _SAMPLING if body.get(name) is not None}
    limits = (body.get(name) for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"))
    fields["max_tokens"] = next((limit for limit in limits if limit is not None), None)
    stop = body.get("stop")
    if stop:
        fields["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
    for name in ("tools", "response_format"):
        if body.get(name):
            fields[name] = json_text(body[name])
    rest = {name: value for name, value in body.items() if name not in _HAVE_COLUMNS | _NOT_KEPT}
    if rest:
        fields["extra_body"] = json_text(rest)
    return fields | {"model": body.get("model"), "priority": body.get("priority")}


def parse_reply(body: Mapping[str, Any] | None) -> Reply:
    """The answer in a response body of any of the three endpoints."""
    if not body:
        return Reply()
    usage = _usage(body.get("usage") or {})
    if isinstance(body.get("output"), list):
        return _responses_reply(body, usage)
    choices = [choice for choice in body.get("choices") or () if isinstance(choice, dict)]
    if not choices:
        return Reply(usage=usage)
    first = choices[0]
    message = first.get("message") or {"role": "assistant", "content": first.get("text")}
    return Reply(
        message=message,
        text=reply_text(message),
        finish_reason=first.get("finish_reason"),
        usage=usage,
        num_choices=len(choices),
    )


def _responses_reply(body: Mapping[str, Any], usage: Usage) -> Reply:
    items = [item for item in body["output"] if isinstance(item, dict)]
    parts = [part for item in items if item.get("type") == "message" for part in item.get("content") or ()]
    calls = [item for item in items if item.get("type") == "function_call"]
    message: Message = {"role": "assistant", "content": "".join(str(p.get("text", "")) for p in parts)}
    if calls:
        functions = [{"name": call.get("name"), "arguments": call.get("arguments")} for call in calls]
        ids = [call.get("call_id") for call in calls]
        pairs = zip(ids, functions, strict=True)
        message["tool_calls"] = [{"id": i, "type": "function", "function": f} for i, f in pairs]
    finish = {"completed": "tool_calls" if calls else "stop", "incomplete": "length"}
    return Reply(
        message=message,
        text=reply_text(message),
        finish_reason=finish.get(str(body.get("status"))),
        usage=usage,
        num_choices=1,
    )


def _usage(usage: Mapping[str, Any]) -> Usage:
    inputs = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    outputs = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    return Usage(
        input_tokens=usage.get("prompt_tokens", usage.get("input_tokens")),
        output_tokens=usage.get("completion_tokens", usage.get("output_tokens")),
        cached_tokens=inputs.get("cached_tokens"),
        reasoning_tokens=outputs.get("reasoning_tokens"),
    )


def reply_text(message: Message) -> str:
    """The words of a reply; a reply that calls tools is its calls as JSON, as the replayer records them."""
    calls = message.get("tool_calls")
    if calls:
        functions = [call.get("function") or {} for call in calls if isinstance(call, dict)]
        return json_text({"tool_calls": [{"name": f.get("name"), "arguments": f.get("arguments")} for f in functions]})
    return plain_text(message)


def plain_text(message: Message) -> str:
    """A message's content as text."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def message_key(message: Message) -> str:
    """What makes two messages the same turn, however a client re-sent it: role, words without thinking, tool calls."""
    words = plain_text(message)
    if message.get("role") == "assistant":
        words = _THINKING.sub("", words)
    calls = [call.get("function") for call in message.get("tool_calls") or () if isinstance(call, dict)]
    return json_text([message.get("role"), words.strip(), calls])
