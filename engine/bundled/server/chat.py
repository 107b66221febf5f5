"""`/v1/chat/completions`.

Does not know sockets or threads.
"""

from __future__ import annotations

import time
import uuid

from engine.bundled.sampling_params import SamplingParams
from engine.bundled.server.chat_body import ChatBody
from engine.bundled.server.chat_reply import ChatReply
from engine.bundled.server.errors import ApiError
from engine.bundled.server.generation_endpoint import GenerationEndpoint, Prepared
from engine.bundled.server.job import GenerationJob
from engine.bundled.server.sampling_fields import sampling_params, stream_fields


class ChatCompletions(GenerationEndpoint[ChatBody]):
    """Messages in, a message out."""

    body_type = ChatBody

    async def prepare(self, body: ChatBody) -> Prepared:
        text = self.model.render_chat(
            body.messages,
            tools=body.tools,
            add_generation_prompt=body.add_generation_prompt,
            variables=body.chat_template_kwargs,
        )
        prompt = await self.model.encode(text, add_special_tokens=False)
        self.model.check_token_ids(prompt, param="messages")
        job = GenerationJob(
            request_id=f"chatcmpl-{uuid.uuid4().hex}",
            created=int(time.time()),
            model_name=body.model or self.model.name,
            prompts=(prompt,),
            params=(self._params(body, len(prompt)),),
            **stream_fields(body),
        )
        wants = {"wants_logprobs": bool(body.logprobs), "wants_prompt_logprobs": body.prompt_logprobs is not None}
        return Prepared(job, ChatReply(job, self.model.token_texts, **wants))

    def _params(self, body: ChatBody, num_prompt_tokens: int) -> SamplingParams:
        if body.max_tokens is not None and body.max_completion_tokens not in (None, body.max_tokens):
            raise ApiError("max_tokens and max_completion_tokens differ: send one of them", param="max_tokens")
        asked = body.max_completion_tokens or body.max_tokens
        limit = self.model.output_limit(num_prompt_tokens, asked, default=None)
        return sampling_params(body, max_tokens=limit, logprobs=body.num_logprobs, prompt_logprobs=body.prompt_logprobs)
