"""`/tokenize` and `/detokenize`, as vLLM has them.

Does not know generation.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.bundled.server.chat_body import Message
from engine.bundled.server.request_body import StrictBody, parse_body
from engine.bundled.server.served_model import ServedModel


class TokenizeBody(StrictBody):
    """A text or a chat."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = Field(default=None, min_length=1)
    tools: list[dict[str, Any]] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool = True
    chat_template_kwargs: dict[str, Any] | None = None
    return_token_strs: bool | None = None

    @model_validator(mode="after")
    def _one_of_prompt_and_messages(self) -> TokenizeBody:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("send either prompt or messages")
        return self


class DetokenizeBody(StrictBody):
    """Token ids."""

    model: str | None = None
    tokens: list[int]


class Tokenization:
    """Both endpoints of one model."""

    def __init__(self, model: ServedModel) -> None:
        self.model = model

    async def tokenize(self, request: Request) -> Response:
        body = parse_body(TokenizeBody, await request.body())
        self.model.check_name(body.model)
        token_ids = await self._encode(body)
        texts = [self.model.token_texts[token_id] for token_id in token_ids] if body.return_token_strs else None
        return JSONResponse(
            {
                "count": len(token_ids),
                "max_model_len": self.model.max_model_len,
                "tokens": token_ids,
                "token_strs": texts,
            }
        )

    async def _encode(self, body: TokenizeBody) -> list[int]:
        if body.prompt is not None:
            return await self.model.encode(body.prompt, add_special_tokens=body.add_special_tokens is not False)
        text = self.model.render_chat(
            body.messages or [],
            tools=body.tools,
            add_generation_prompt=body.add_generation_prompt,
            variables=body.chat_template_kwargs,
        )
        return await self.model.encode(text, add_special_tokens=bool(body.add_special_tokens))

    async def detokenize(self, request: Request) -> Response:
        body = parse_body(DetokenizeBody, await request.body())
        self.model.check_name(body.model)
        if body.tokens:
            self.model.check_token_ids(body.tokens, param="tokens")
        return JSONResponse({"prompt": self.model.tokenizer.decode(body.tokens, skip_special_tokens=False)})
