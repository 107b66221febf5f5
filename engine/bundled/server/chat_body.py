"""The body of `/v1/chat/completions`.

Does not know chat templates: messages go on as they came, content parts joined.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine.bundled.server.request_body import GenerationBody


class ContentPart(BaseModel):
    """One piece of a message; only text is read."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: str
    text: str | None = None


class Message(BaseModel):
    """One turn; fields besides role and content (tool_calls, name, ...) are the template's business."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    role: str
    content: str | list[ContentPart] | None = None

    @model_validator(mode="after")
    def _every_part_is_text(self) -> Message:
        for part in self.content if isinstance(self.content, list) else ():
            if part.type not in ("text", "input_text") or part.text is None:
                raise ValueError(f"content parts of type {part.type} are not supported: this engine reads text")
        return self

    def for_template(self) -> dict[str, Any]:
        """The message as chat templates expect it: content is one text."""
        fields = self.model_dump(exclude_unset=True)
        if isinstance(self.content, list):
            fields["content"] = "\n".join(part.text or "" for part in self.content)
        return fields


class ChatBody(GenerationBody):
    """OpenAI's chat completion, with vLLM's additions."""

    messages: list[Message] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = None
    add_generation_prompt: bool = True
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    modalities: list[str] | None = None

    without_effect: ClassVar[dict[str, tuple[object, ...]]] = {
        **GenerationBody.without_effect,
        "tool_choice": ("auto", "none"),
        "modalities": (["text"],),
        "reasoning_effort": ("none",),
    }

    @model_validator(mode="after")
    def _top_logprobs_need_logprobs(self) -> ChatBody:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self

    @property
    def num_logprobs(self) -> int | None:
        """Alternatives to report at each token; None: no logprobs at all."""
        return (self.top_logprobs or 0) if self.logprobs else None
