"""What is sent: a recorded request as the path and JSON body of an OpenAI HTTP request.

Does not know when it is sent or how the answer is read.

    messages                 → /v1/chat/completions
    prompt                   → /v1/completions
    prompt_token_ids         → /v1/completions with ids
    hashes or lengths alone  → /v1/completions with synthetic ids (`synthetic.py`)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from workloads.errors import WorkloadError
from workloads.metadata import WorkloadMetadata
from workloads.request import Request, json_text
from workloads.synthetic import SyntheticPrompts

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

# The replayer decides these; whatever the recorded body said of them is left out.
_OURS = frozenset(
    (
        *("model", "messages", "prompt", "stream", "stream_options", "n", "best_of", "return_token_ids"),
        *("max_tokens", "max_completion_tokens", "min_tokens", "ignore_eos"),
    )
)
_GUIDED = frozenset(
    ("response_format", "tool_choice", "structured_outputs", "guided_json", "guided_regex", "guided_choice")
)


class PreparedRequest(NamedTuple):
    """A request ready to send, and the lengths it asks for (None: not known before the answer)."""

    path: str
    body: bytes
    input_tokens: int | None
    output_tokens: int | None


class _Lengths(NamedTuple):
    input_tokens: int | None
    output_tokens: int | None


@dataclass(kw_only=True)
class PromptBuilder:
    """Builds bodies for one server and counts what it had to change."""

    model: str
    metadata: WorkloadMetadata
    pin_lengths: bool = True
    vocab_size: int | None = None
    max_model_len: int | None = None
    seed: int = 0
    return_token_ids: bool = True
    can_pin: bool = True  # the server knows min_tokens and ignore_eos
    served_models: Collection[str] = ()
    changes: Counter[str] = field(default_factory=Counter)

    def build(self, request: Request) -> PreparedRequest:
        """The body to send.

        Raises:
            WorkloadError: nothing to send, or a synthetic prompt without a vocabulary size.
        """
        lengths = self._clamped(request)
        name, content = self._content(request, lengths.input_tokens)
        head = json_text(self._fields(request, lengths, chat=name == "messages"))
        body = f'{head[:-1]},"{name}":{content}}}'.encode()
        return PreparedRequest(CHAT if name == "messages" else COMPLETIONS, body, *lengths)

    def _content(self, request: Request, num_tokens: int | None) -> tuple[str, str]:
        """The key that holds the prompt and its value as JSON text."""
        if request.messages is not None:
            return "messages", request.messages
        if request.prompt is not None:
            return "prompt", json_text(request.prompt)
        if request.prompt_token_ids is not None:
            return "prompt", json_text(request.prompt_token_ids[:num_tokens])
        if num_tokens is None:
            what = f"request {request.request_id!r} has neither a prompt nor input_tokens"
            raise WorkloadError(what, fix="Import the workload with its content or its lengths")
        return "prompt", json_text(self._synthetic().token_ids(request, num_tokens))

    def _synthetic(self) -> SyntheticPrompts:
        size = self.vocab_size or self.metadata.vocab_size
        if size is None:
            fix = "Give the model's vocabulary size"
            raise WorkloadError(f"workload {self.metadata.name!r} has no text and no vocab_size", fix=fix)
        return SyntheticPrompts(vocab_size=size, seed=self.seed, prefix=self.metadata.prefix)

    def _clamped(self, request: Request) -> _Lengths:
        """The recorded lengths, cut to what the server takes; the output keeps at most half when both are too long."""
        ids = request.prompt_token_ids
        text = request.messages is not None or request.prompt is not None
        given = request.input_tokens if text or ids is None else len(ids)
        output = None if request.output_tokens is None else max(1, request.output_tokens)
        if self.max_model_len is None or given is None:
            return _Lengths(given, output)
        wanted = output or 1
        kept = min(wanted, max(self.max_model_len // 2, self.max_model_len - given))
        room = self.max_model_len - kept
        if kept < wanted:
            self.changes["outputs shortened to the server's max_model_len"] += 1
        if given > room:
            self.changes["prompts " + ("longer than" if text else "cut to") + " the server's max_model_len"] += 1
        return _Lengths(given if text else min(given, room), kept if output is not None else None)

    def _fields(self, request: Request, lengths: _Lengths, *, chat: bool) -> dict[str, Any]:
        fields = self._recorded_body(request)
        fields |= {"model": self._model_of(request), "stream": True, "stream_options": {"include_usage": True}}
        if self.return_token_ids:
            fields["return_token_ids"] = True
        for name in ("temperature", "top_p", "top_k", "seed", "stop"):
            value = getattr(request, name)
            if value is not None:
                fields[name] = value
        if request.tools is not None and chat:
            fields["tools"] = json.loads(request.tools)
        if request.response_format is not None:
            fields["response_format"] = json.loads(request.response_format)
        return self._with_lengths(fields, request, lengths, chat)

    def _recorded_body(self, request: Request) -> dict[str, Any]:
        body = json.loads(request.extra_body) if request.extra_body is not None else {}
        return {name: value for name, value in body.items() if name not in _OURS}

    def _model_of(self, request: Request) -> str:
        if request.adapter is None:
            return self.model
        if request.adapter in self.served_models:
            self.changes["requests sent to the LoRA adapter that they name"] += 1
            return request.adapter
        self.changes["requests for adapters the server does not have, sent to the base model"] += 1
        return self.model

    def _with_lengths(self, fields: dict[str, Any], request: Request, lengths: _Lengths, chat: bool) -> dict[str, Any]:
        if not self.pin_lengths:
            limit = request.max_tokens if request.max_tokens is not None or chat else lengths.output_tokens
            return fields if limit is None else fields | {"max_tokens": limit}
        if lengths.output_tokens is None:
            what = f"request {request.request_id!r} has no output_tokens to pin its length to"
            raise WorkloadError(what, fix="Import the workload with output lengths, or replay with free lengths")
        if fields.keys() & _GUIDED:
            self.changes["requests whose guided decoding is off because their length is pinned"] += 1
            fields = {name: value for name, value in fields.items() if name not in _GUIDED}
        pins = {"min_tokens": lengths.output_tokens, "ignore_eos": True} if self.can_pin else {}
        return fields | {"max_tokens": lengths.output_tokens} | pins

    def notes(self) -> list[str]:
        """What was changed, with counts, in words."""
        return [f"{count} {what}" for what, count in sorted(self.changes.items())]
