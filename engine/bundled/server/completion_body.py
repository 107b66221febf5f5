"""The body of `/v1/completions`.

Does not know how it is answered.
"""

from __future__ import annotations

from typing import ClassVar, cast

from pydantic import Field

from engine.bundled.server.request_body import GenerationBody


class CompletionBody(GenerationBody):
    """OpenAI's legacy completion, with vLLM's additions."""

    prompt: str | list[int] | list[str] | list[list[int]]
    max_tokens: int | None = Field(default=None, ge=0)  # 0 with echo: score the prompt alone
    logprobs: int | None = None
    echo: bool = False
    add_special_tokens: bool = True
    best_of: int | None = None
    suffix: str | None = None

    without_effect: ClassVar[dict[str, tuple[object, ...]]] = {
        **GenerationBody.without_effect,
        "best_of": (1,),
        "suffix": ("",),
    }

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts as a list, whatever form they came in."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [self.prompt]
        return cast("list[str | list[int]]", self.prompt)
