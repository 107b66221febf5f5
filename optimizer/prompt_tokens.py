"""A chat's or a text's prompt as the engine's token ids: what tells which prompts share a prefix.

Does not know engines' caches.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.bundled.errors import CheckpointError, RequestError
from engine.bundled.tokenizer import Tokenizer
from workloads.request import Request


class PromptTokenizer:
    """The model folder's tokenizer and chat template; without them, what the request itself knows."""

    def __init__(self, model: Path) -> None:
        try:
            self._tokenizer: Tokenizer | None = Tokenizer(model)
        except CheckpointError:
            self._tokenizer = None

    def __call__(self, request: Request) -> Sequence[int]:
        """Empty where the request has no prompt."""
        if request.prompt_token_ids or self._tokenizer is None:
            return request.prompt_token_ids or ()
        if request.prompt is not None:
            return self._tokenizer.encode(request.prompt)
        if request.messages is None:
            return ()
        try:
            text = self._tokenizer.apply_chat_template(request.chat_messages())
        except RequestError:
            return ()
        return self._tokenizer.encode(text, add_special_tokens=False)
