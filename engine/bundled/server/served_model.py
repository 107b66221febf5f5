"""`ServedModel`: the engine as the endpoints see it: a name, limits, a tokenizer, and requests that come and go.

Does not know JSON or the HTTP protocol.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.bundled.outputs import RequestOutput
from engine.bundled.server.chat_body import Message
from engine.bundled.server.choice import Choice
from engine.bundled.server.engine_thread import EngineThread
from engine.bundled.server.errors import ApiError
from engine.bundled.server.job import GenerationJob
from engine.bundled.server.logprob_forms import TokenTexts
from engine.bundled.server.output_channel import OutputChannel
from engine.bundled.server.request_metrics import RequestMetrics
from engine.bundled.server.text_stream import RunningText, StoppingText, TextStream, WholeText
from engine.config import SchedulingPolicy

if TYPE_CHECKING:
    from engine.bundled.tokenizer import Tokenizer

DEFAULT_MAX_REQUESTS = 8192
_LONG_TEXT = 20_000  # characters; longer texts are encoded beside the event loop


class ServedModel:
    """One model and the engine thread behind it.

    Args:
        adapters: folders of LoRA adapters by the name that requests give as their model.
        max_requests: generations in flight, waiting ones included; more are refused.
    """

    def __init__(
        self,
        *,
        name: str,
        tokenizer: Tokenizer,
        max_model_len: int,
        vocab_size: int,
        thread: EngineThread,
        scheduling_policy: SchedulingPolicy = "fcfs",
        adapters: Mapping[str, str] | None = None,
        max_requests: int = DEFAULT_MAX_REQUESTS,
    ) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.max_model_len = max_model_len
        self.vocab_size = vocab_size
        self.thread = thread
        self.scheduling_policy = scheduling_policy
        self.adapters = dict(adapters or {})
        self.max_requests = max_requests
        self.metrics = RequestMetrics(name)
        self.token_texts = TokenTexts(tokenizer.token_text)

    def check_name(self, name: str | None) -> None:
        """Raises ApiError 404 when a request names neither the model nor one of its adapters."""
        if name is not None and name != self.name and name not in self.adapters:
            served = ", ".join(map(repr, (self.name, *self.adapters)))
            message = f"the model {name!r} does not exist. This server serves {served}"
            raise ApiError(message, status=404, param="model", code="model_not_found")

    async def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        if len(text) < _LONG_TEXT:
            return self.tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return await asyncio.to_thread(self.tokenizer.encode, text, add_special_tokens=add_special_tokens)

    def render_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: list[dict[str, Any]] | None,
        add_generation_prompt: bool,
        variables: dict[str, Any] | None,
    ) -> str:
        """Messages as the one text the model reads.

        Raises:
            ApiError: the model has no chat template, or the template refuses these messages.
        """
        plain = [message.for_template() for message in messages]
        return self.tokenizer.apply_chat_template(
            plain, tools=tools, add_generation_prompt=add_generation_prompt, **(variables or {})
        )

    def check_token_ids(self, token_ids: Sequence[int], *, param: str = "prompt") -> None:
        """Raises ApiError for an empty prompt or an id outside the vocabulary."""
        if not token_ids:
            raise ApiError(f"{param} is empty: give at least one token", param=param)
        if min(token_ids) < 0 or max(token_ids) >= self.vocab_size:
            wrong = next(token_id for token_id in token_ids if not 0 <= token_id < self.vocab_size)
            message = f"{param}: token id {wrong} is outside the vocabulary (0 to {self.vocab_size - 1})"
            raise ApiError(message, param=param)

    def output_limit(self, num_prompt_tokens: int, asked: int | None, *, default: int | None) -> int:
        """Tokens that may be generated: as asked, else the default, cut to the context.

        Raises:
            ApiError: prompt and what was asked do not fit the context together.
        """
        room = self.max_model_len - num_prompt_tokens
        wanted = 1 if asked is None else asked
        if room < max(wanted, 1):
            message = (
                f"this model's context is {self.max_model_len} tokens, but {num_prompt_tokens + wanted} were asked for "
                f"({num_prompt_tokens} in the prompt, {wanted} to generate). Shorten the prompt or max_tokens"
            )
            raise ApiError(message, param="max_tokens", code="context_length_exceeded")
        return asked if asked is not None else min(room, default or room)

    def open(self, job: GenerationJob, channel: OutputChannel) -> list[Choice]:
        """Send a job's generations to the engine; their outputs come through the channel.

        Raises:
            ApiError: too many requests, a priority that nobody would look at, or no engine.
        """
        self._check_standing(job)
        if self.thread.num_in_flight + job.num_choices > self.max_requests:
            raise self._too_many(job)
        choices = [self._choice(job, index) for index in range(job.num_choices)]
        for choice in choices:
            sink = _ChoiceSink(choice.index, channel, self.metrics)
            params = job.params_of(choice.index)
            adapter = job.model_name if job.model_name in self.adapters else None
            self.thread.submit(
                engine_id(job, choice), choice.prompt, params, sink, standing=job.standing, adapter=adapter
            )
        return choices

    def _check_standing(self, job: GenerationJob) -> None:
        if job.standing.priority and self.scheduling_policy != "priority":
            message = f"priority has no effect: this server schedules by {self.scheduling_policy}. Leave it out, or "
            raise ApiError(message + "start the server with scheduling_policy: priority", param="priority")

    def _too_many(self, job: GenerationJob) -> ApiError:
        if job.num_choices > self.max_requests:
            message = f"{job.num_choices} generations in one request are more than this server's {self.max_requests}"
            return ApiError(f"{message}. Send several requests", param="n")
        return ApiError(
            f"{self.thread.num_in_flight} of {self.max_requests} generations are in flight; send this one later",
            status=429,
            code="too_many_requests",
            retry_after_s=self.metrics.seconds_to_finish(job.num_choices),
        )

    def _choice(self, job: GenerationJob, index: int) -> Choice:
        return Choice(
            index=index,
            prompt=job.prompts[index // job.n],
            text=self._text_stream(job),
            stop_token_ids=frozenset(job.params[0].stop_token_ids),
            keeps_stop=job.include_stop,
        )

    def _text_stream(self, job: GenerationJob) -> TextStream:
        skip = job.skip_special_tokens
        if not job.stream and not job.stop:
            return WholeText(lambda token_ids: self.tokenizer.decode(token_ids, skip_special_tokens=skip))
        detokenizer = self.tokenizer.detokenizer(skip_special_tokens=skip)
        running = RunningText(detokenizer.append, detokenizer.finish)
        if not job.stop:
            return running
        return StoppingText(running, job.stop, min_tokens=job.params[0].min_tokens, include_stop=job.include_stop)

    def settle(self, job: GenerationJob, choice: Choice) -> None:
        """Count a finished choice; tell the engine when it ended before the engine thought so."""
        if choice.is_cut_short:
            self.thread.abort(engine_id(job, choice))
        assert choice.finish_reason is not None
        self.metrics.count_finished(choice.finish_reason)

    def close(self, job: GenerationJob, choices: Sequence[Choice]) -> None:
        """Abort what is not finished; nothing to do for an answer that is complete."""
        for choice in choices:
            if choice.finish_reason is None:
                self.thread.abort(engine_id(job, choice))
                self.metrics.count_finished("abort")


def engine_id(job: GenerationJob, choice: Choice) -> str:
    """The engine's name for one choice of a job."""
    return f"{job.request_id}-{choice.index}"


class _ChoiceSink:
    """Passes one choice's outputs on and times them."""

    def __init__(self, index: int, channel: OutputChannel, metrics: RequestMetrics) -> None:
        self._index = index
        self._channel = channel
        self._metrics = metrics
        self._begin = time.perf_counter()
        self._is_waiting = True

    def put(self, output: RequestOutput) -> None:
        if self._is_waiting:
            self._is_waiting = False
            self._metrics.observe_first_token(time.perf_counter() - self._begin)
        if output.finish_reason is not None:
            self._metrics.observe_end(time.perf_counter() - self._begin)
        self._channel.put(self._index, output)

    def fail(self, error: Exception) -> None:
        self._channel.fail(error)
