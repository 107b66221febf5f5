"""The request fields that completions and chat share, and how a body is read.

Does not know prompts or messages; unknown fields are errors, never ignored.
"""

from __future__ import annotations

import difflib
import json
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.bundled.server.errors import ApiError

Body = TypeVar("Body", bound="StrictBody")

_SHAPES = {
    "prompt": "must be a text, a list of texts, a list of token ids or a list of lists of token ids",
    "stop": "must be a text or a list of texts",
    "messages": "must be a list of objects with a role and a content (a text or a list of text parts)",
}


class StrictBody(BaseModel):
    """A body whose every field is known and of the right JSON type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


class StreamOptions(StrictBody):
    """What a stream carries besides text."""

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: bool = False  # OpenAI's padding against eavesdroppers; never added here


class JsonSchema(StrictBody):
    """OpenAI's wrapping of a JSON schema."""

    name: str
    description: str | None = None
    json_schema: dict[str, Any] | bool = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(StrictBody):
    """What an answer must be: any text, any JSON object, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _a_schema_where_one_is_needed(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("response_format: type json_schema and the field json_schema belong together")
        return self

    @property
    def schema_text(self) -> str | None:
        """The JSON schema to follow; None for any text."""
        if self.type == "text":
            return None
        schema = {"type": "object"} if self.json_schema is None else self.json_schema.json_schema
        return json.dumps(schema)


class GenerationBody(StrictBody):
    """Fields of every generation; None means: not sent."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, le=128)
    min_tokens: int = 0
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    response_format: ResponseFormat | None = None
    skip_special_tokens: bool = True
    prompt_logprobs: int | None = None
    return_token_ids: bool | None = None

    # Its place among those that wait, where the scheduling policy looks at it.
    priority: int | None = None  # smaller is sooner
    user: str | None = None

    # Accepted and without effect here.
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    request_id: str | None = None

    # Not supported: only values that change nothing are accepted.
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    min_p: float | None = None

    without_effect: ClassVar[dict[str, tuple[object, ...]]] = {
        "presence_penalty": (0,),
        "frequency_penalty": (0,),
        "repetition_penalty": (1,),
        "logit_bias": ({},),
        "min_p": (0,),
    }

    @model_validator(mode="after")
    def _unsupported_fields_change_nothing(self) -> GenerationBody:
        for name, harmless in self.without_effect.items():
            value = getattr(self, name)
            if value is not None and value not in harmless:
                raise ValueError(f"{name} is not supported by this engine: leave it out or send {harmless[0]}")
        return self

    @model_validator(mode="after")
    def _stream_fields_need_a_stream(self) -> GenerationBody:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        if self.stream and self.prompt_logprobs is not None:
            raise ValueError("prompt_logprobs is not available with stream: true")
        return self

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """`stop` as a tuple, empty texts refused.

        Raises:
            ApiError: an empty stop text, which would end every answer at once.
        """
        strings = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if "" in strings:
            raise ApiError("stop: an empty text stops at once. Leave it out", param="stop")
        return strings


def parse_body(kind: type[Body], content: bytes) -> Body:
    """Read a JSON body, naming the first wrong field in plain words.

    Raises:
        ApiError: malformed JSON, unknown fields, wrong types or unsupported values.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _as_api_error(kind, first["type"], [str(part) for part in first["loc"]], first["msg"]) from None


def _as_api_error(kind: type[StrictBody], error_type: str, path: list[str], message: str) -> ApiError:
    if error_type == "json_invalid":
        return ApiError(f"the body is not JSON: {message.removeprefix('Invalid JSON: ')}")
    if error_type == "extra_forbidden":
        return ApiError(_unknown_field(kind, path), param=path[-1])
    if error_type == "value_error" or not path:
        return ApiError(message.removeprefix("Value error, "), param=path[0] if path else None)
    field = path[0]
    if error_type == "missing":
        return ApiError(f"{'.'.join(path)} is missing", param=field)
    return ApiError(f"{field}: {_SHAPES.get(field, message)}", param=field)


def _unknown_field(kind: type[StrictBody], path: list[str]) -> str:
    known = list((StreamOptions if path[0] == "stream_options" else kind).model_fields)
    close = difflib.get_close_matches(path[-1], known, n=1)
    hint = f"Did you mean {close[0]}?" if close else "Remove it or correct its name"
    return f"unknown field {'.'.join(path)}. {hint}"
