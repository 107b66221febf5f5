"""What a step hands back: token log-probabilities, request outputs and counters.

Does not know how they came about; imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

FinishReason = Literal["stop", "length", "abort"]


class TokenLogprob(NamedTuple):
    """One token under the model's raw distribution (log-softmax of unscaled logits), in nats."""

    token_id: int
    logprob: float
    rank: int  # 1 is the most likely
    top: tuple[tuple[int, float], ...]  # the best tokens with their log-probabilities, best first


@dataclass(kw_only=True)
class RequestOutput:
    """News of one request since its last output."""

    request_id: str
    token_ids: list[int]
    finish_reason: FinishReason | None = None
    logprobs: list[TokenLogprob] | None = None
    prompt_logprobs: list[TokenLogprob | None] | None = None  # once, the first token's is None
    num_cached_tokens: int = 0  # prompt tokens found in the prefix cache


@dataclass(kw_only=True)
class EngineCounters:
    """Totals since the engine started, and the state of this moment."""

    num_drafts: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    accepted_tokens_per_position: list[int] = field(default_factory=list)
    prefix_cache_queries: int = 0  # prompt tokens looked up
    prefix_cache_hits: int = 0  # prompt tokens found
    num_preemptions: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    num_requests_running: int = 0
    num_requests_waiting: int = 0
    kv_cache_usage: float = 0.0  # share of blocks held, 0 to 1
    num_finished: dict[str, int] = field(default_factory=dict)  # by finish reason
