"""The answer of `/v1/chat/completions`, with vLLM's additions.

Does not know templates or tools: what the model says is content.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from engine.bundled.server.choice import Choice, Delta
from engine.bundled.server.job import GenerationJob
from engine.bundled.server.logprob_forms import TokenTexts, chat_logprobs, prompt_logprobs
from engine.bundled.server.reply import Reply, ending, quote


class ChatReply(Reply):
    """Message choices; a stream opens each with its role."""

    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(
        self, job: GenerationJob, texts: TokenTexts, *, wants_logprobs: bool, wants_prompt_logprobs: bool
    ) -> None:
        super().__init__(job, texts)
        self._wants_logprobs = wants_logprobs
        self._wants_prompt_logprobs = wants_prompt_logprobs

    def events(self, choice: Choice, delta: Delta, choices: Sequence[Choice]) -> str:
        logprobs = "null"
        if self._wants_logprobs:
            logprobs = json.dumps(chat_logprobs(delta.logprobs or (), self.texts))
        members = f',"delta":{{"content":{quote(delta.text)}}},"logprobs":{logprobs}{ending(choice)}'
        if self.job.return_token_ids:
            members += f',"token_ids":{delta.token_ids}'
        content = self.event(choice, members, choices)
        return self._opening(choice, choices) + content if delta.is_first else content

    def _opening(self, choice: Choice, choices: Sequence[Choice]) -> str:
        members = ',"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null'
        prompt = f',"prompt_token_ids":{choice.prompt}' if self.job.return_token_ids else ""
        return self.event(choice, members, choices, top_level=prompt)

    def choice_object(self, choice: Choice) -> dict[str, Any]:
        members: dict[str, Any] = {
            "index": choice.index,
            "message": {"role": "assistant", "content": choice.text},
            "logprobs": chat_logprobs(choice.logprobs, self.texts) if self._wants_logprobs else None,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
        }
        return members | ({"token_ids": choice.token_ids} if self.job.return_token_ids else {})

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        members = super().whole(choices)
        if self._wants_prompt_logprobs:
            members["prompt_logprobs"] = prompt_logprobs(choices[0].prompt_logprobs or (), self.texts)
        if self.job.return_token_ids:
            members["prompt_token_ids"] = choices[0].prompt
        return members
