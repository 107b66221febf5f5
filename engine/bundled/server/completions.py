"""`/v1/completions`.

Does not know sockets or threads.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from engine.bundled.sampling_params import SamplingParams
from engine.bundled.server.completion_body import CompletionBody
from engine.bundled.server.completion_reply import CompletionReply
from engine.bundled.server.errors import ApiError
from engine.bundled.server.generation_endpoint import GenerationEndpoint, Prepared
from engine.bundled.server.job import GenerationJob
from engine.bundled.server.sampling_fields import sampling_params, stream_fields

DEFAULT_MAX_TOKENS = 16  # OpenAI's


class Completions(GenerationEndpoint[CompletionBody]):
    """Text or tokens in, text out."""

    body_type = CompletionBody

    async def prepare(self, body: CompletionBody) -> Prepared:
        prompts = [await self._token_ids(prompt, body) for prompt in body.prompts]
        if not prompts:
            raise ApiError("prompt is empty: give at least one token", param="prompt")
        job = GenerationJob(
            request_id=f"cmpl-{uuid.uuid4().hex}",
            created=int(time.time()),
            model_name=body.model or self.model.name,
            prompts=tuple(prompts),
            params=tuple(self._params(body, len(prompt)) for prompt in prompts),
            echo=body.echo,
            scores_only=body.max_tokens == 0,
            **stream_fields(body),
        )
        return Prepared(job, self._reply(body, job))

    async def _token_ids(self, prompt: str | list[int], body: CompletionBody) -> list[int]:
        if isinstance(prompt, str):
            prompt = await self.model.encode(prompt, add_special_tokens=body.add_special_tokens)
        self.model.check_token_ids(prompt)
        return prompt

    def _params(self, body: CompletionBody, num_prompt_tokens: int) -> SamplingParams:
        if body.max_tokens == 0 and not body.echo and body.prompt_logprobs is None:
            raise ApiError("max_tokens: 0 needs echo or prompt_logprobs, else there is no answer", param="max_tokens")
        asked = None if body.max_tokens is None else max(body.max_tokens, 1)
        limit = self.model.output_limit(num_prompt_tokens, asked, default=DEFAULT_MAX_TOKENS)
        num_scores = body.prompt_logprobs
        if num_scores is None and body.echo:
            num_scores = body.logprobs
        return sampling_params(body, max_tokens=limit, logprobs=body.logprobs, prompt_logprobs=num_scores)

    def _reply(self, body: CompletionBody, job: GenerationJob) -> CompletionReply:
        return CompletionReply(
            job,
            self.model.token_texts,
            echoed_texts=[self._echoed(prompt, body) for prompt in body.prompts],
            wants_logprobs=body.logprobs is not None,
            wants_prompt_logprobs=body.prompt_logprobs is not None,
        )

    def _echoed(self, prompt: str | Sequence[int], body: CompletionBody) -> str:
        if not body.echo or isinstance(prompt, str):
            return prompt if isinstance(prompt, str) else ""
        return self.model.tokenizer.decode(prompt, skip_special_tokens=body.skip_special_tokens)
