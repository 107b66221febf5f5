"""The answer of `/v1/completions`, with vLLM's additions.

Does not know the request's JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from engine.bundled.outputs import TokenLogprob
from engine.bundled.server.choice import Choice, Delta
from engine.bundled.server.job import GenerationJob
from engine.bundled.server.logprob_forms import TokenTexts, completion_logprobs, prompt_logprobs
from engine.bundled.server.reply import Reply, ending, quote


class CompletionReply(Reply):
    """Text choices; with echo the prompt's text and logprobs come first."""

    whole_object = chunk_object = "text_completion"

    def __init__(
        self,
        job: GenerationJob,
        texts: TokenTexts,
        *,
        echoed_texts: Sequence[str],
        wants_logprobs: bool,
        wants_prompt_logprobs: bool,
    ) -> None:
        super().__init__(job, texts)
        self._echoed_texts = echoed_texts
        self._wants_logprobs = wants_logprobs
        self._wants_prompt_logprobs = wants_prompt_logprobs
        self._text_offsets = [0] * job.num_choices

    def events(self, choice: Choice, delta: Delta, choices: Sequence[Choice]) -> str:
        text = self._echoed(choice) + delta.text if delta.is_first else delta.text
        logprobs = json.dumps(self._delta_logprobs(choice, delta)) if self._wants_logprobs else "null"
        members = f',"text":{quote(text)},"logprobs":{logprobs}{ending(choice)}'
        if self.job.return_token_ids:
            prompt = f',"prompt_token_ids":{choice.prompt}' if delta.is_first else ""
            members += f'{prompt},"token_ids":{delta.token_ids}'
        return self.event(choice, members, choices)

    def choice_object(self, choice: Choice) -> dict[str, Any]:
        all_at_once = Delta(True, choice.text, choice.token_ids, choice.logprobs)
        members: dict[str, Any] = {
            "index": choice.index,
            "text": self._echoed(choice) + choice.text,
            "logprobs": self._delta_logprobs(choice, all_at_once) if self._wants_logprobs else None,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
        }
        if self._wants_prompt_logprobs:
            members["prompt_logprobs"] = prompt_logprobs(choice.prompt_logprobs or (), self.texts)
        if self.job.return_token_ids:
            members |= {"prompt_token_ids": choice.prompt, "token_ids": choice.token_ids}
        return members

    def _echoed(self, choice: Choice) -> str:
        return self._echoed_texts[choice.index // self.job.n] if self.job.echo else ""

    def _delta_logprobs(self, choice: Choice, delta: Delta) -> dict[str, Any]:
        token_ids = delta.token_ids
        entries: list[TokenLogprob | None] = [*(delta.logprobs or ())]
        if delta.is_first and self.job.echo:
            token_ids, entries = choice.prompt + token_ids, [*(choice.prompt_logprobs or ()), *entries]
        offset = self._text_offsets[choice.index]
        members = completion_logprobs(token_ids, entries, self.texts, text_offset=offset)
        self._text_offsets[choice.index] += sum(map(len, members["tokens"]))
        return members
