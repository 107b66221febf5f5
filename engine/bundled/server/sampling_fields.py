"""The shared request fields as the engine's `SamplingParams` and the job's stream options.

Does not know prompts.
"""

from __future__ import annotations

from typing import TypedDict

from engine.bundled.sampling_params import SamplingParams
from engine.bundled.sequence import Standing
from engine.bundled.server.request_body import GenerationBody, StreamOptions


class StreamFields(TypedDict):
    """Fields of `GenerationJob` that both endpoints read alike."""

    standing: Standing
    n: int
    stop: tuple[str, ...]
    include_stop: bool
    skip_special_tokens: bool
    stream: bool
    include_usage: bool
    continuous_usage: bool
    return_token_ids: bool


def stream_fields(body: GenerationBody) -> StreamFields:
    """What the answer carries and how it ends."""
    options = body.stream_options or StreamOptions()
    return {
        "standing": Standing(priority=body.priority or 0, client=body.user or ""),
        "n": body.n or 1,
        "stop": body.stop_strings,
        "include_stop": body.include_stop_str_in_output,
        "skip_special_tokens": body.skip_special_tokens,
        "stream": bool(body.stream),
        "include_usage": options.include_usage,
        "continuous_usage": options.include_usage and options.continuous_usage_stats,
        "return_token_ids": bool(body.return_token_ids),
    }


def sampling_params(
    body: GenerationBody, *, max_tokens: int, logprobs: int | None, prompt_logprobs: int | None
) -> SamplingParams:
    """OpenAI's defaults filled in.

    Raises:
        RequestError: a value is out of its range.
    """
    top_k = body.top_k or 0
    return SamplingParams(
        max_tokens=max_tokens,
        min_tokens=body.min_tokens,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=0 if top_k == -1 else top_k,  # -1 is vLLM's older name for off
        seed=body.seed,
        ignore_eos=body.ignore_eos,
        stop_token_ids=tuple(body.stop_token_ids or ()),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        json_schema=None if body.response_format is None else body.response_format.schema_text,
    )
