"""A whole conversation to requests: one for each assistant turn, with what went before as messages.

Does not know file formats, or times: conversations have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from workloads.importers.importer import source_of
from workloads.importers.openai_shapes import Message, reply_text
from workloads.metadata import WorkloadMetadata
from workloads.request import Request, json_text
from workloads.tokenizer import TokenCounter

NO_ARRIVALS = "conversations have no arrivals and no think times: replay with a fixed concurrency"


def turns(
    name: str, messages: Sequence[Message], tools: list[Any] | None, tokenizer: TokenCounter | None
) -> Iterator[Request]:
    """A request for each assistant message that follows others; one with `weight: 0` is only context."""
    parent: str | None = None
    number = 0
    sent: list[Message] = []
    for place, message in enumerate(messages):
        if message.get("role") == "assistant" and sent and message.get("weight") != 0:
            yield _turn(f"{name}#{place}", name, number, parent, sent, message, tools, tokenizer)
            parent, number = f"{name}#{place}", number + 1
        sent.append({key: value for key, value in message.items() if key != "weight"})


def _turn(
    request_id: str,
    session: str,
    number: int,
    parent: str | None,
    sent: list[Message],
    reply: Message,
    tools: list[Any] | None,
    tokenizer: TokenCounter | None,
) -> Request:
    text = reply_text(reply)
    return Request(
        request_id=request_id,
        session_id=session,
        turn=number,
        parent_ids=(parent,) if parent else (),
        input_tokens=tokenizer.count(tokenizer.chat_text(sent, tools)) or None if tokenizer else None,
        output_tokens=tokenizer.count(text) if tokenizer else None,
        messages=json_text(sent),
        tools=json_text(tools) if tools else None,
        response=text,
    )


def conversation_metadata(path: Path, name: str, tokenizer: TokenCounter | None) -> WorkloadMetadata:
    """Metadata of a file of conversations."""
    return WorkloadMetadata(
        name=path.stem,
        source=source_of(path, name),
        tokenizer=str(tokenizer.folder) if tokenizer else None,
        vocab_size=tokenizer.vocab_size if tokenizer else None,
    )


def conversation_losses(tokenizer: TokenCounter | None) -> list[str]:
    """What no file of conversations has."""
    uncounted = [] if tokenizer else ["token counts are unknown: import with --tokenizer DIR to count them"]
    return [NO_ARRIVALS, *uncounted]
