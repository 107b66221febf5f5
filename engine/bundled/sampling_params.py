"""`SamplingParams`: how one request wants its tokens drawn and when it ends.

Does not know the model: limits that depend on it (vocabulary, context) are `LLMEngine.add_request`'s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.bundled.errors import RequestError

MAX_LOGPROBS = 1024
_GREEDY_BELOW = 1e-5  # as vLLM: logits divided by less overflow


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Drawing and stopping of one request, under vLLM's names.

    Args:
        min_tokens: stop tokens are masked until this many were drawn.
        temperature: 0 is greedy.
        top_k: 0 is off.
        seed: the same seed draws the same tokens whatever else runs; None lets the engine choose.
        logprobs: number of best tokens to report beside the drawn one; 0 is the drawn one alone.
        prompt_logprobs: the same for every prompt token.
        json_schema: text of a JSON schema that the answer must be of; None lets it be anything.

    Raises:
        RequestError: a value is out of its range.
    """

    max_tokens: int = 16
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    ignore_eos: bool = False
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    json_schema: str | None = None

    def __post_init__(self) -> None:
        _demand(self.max_tokens >= 1, f"max_tokens must be at least 1, got {self.max_tokens}")
        _demand(
            0 <= self.min_tokens <= self.max_tokens,
            f"min_tokens must be between 0 and max_tokens ({self.max_tokens}), got {self.min_tokens}",
        )
        _demand(
            math.isfinite(self.temperature) and 0 <= self.temperature <= 100,
            f"temperature must be between 0 and 100, got {self.temperature}",
        )
        _demand(0 < self.top_p <= 1, f"top_p must be above 0 and at most 1, got {self.top_p}")
        _demand(self.top_k >= 0, f"top_k must be 0 (off) or positive, got {self.top_k}")
        _demand(self.seed is None or -(2**63) <= self.seed < 2**64, "seed must fit in 64 bits")
        for name, count in (("logprobs", self.logprobs), ("prompt_logprobs", self.prompt_logprobs)):
            _demand(count is None or 0 <= count <= MAX_LOGPROBS, f"{name} must be between 0 and {MAX_LOGPROBS}")

    @property
    def is_greedy(self) -> bool:
        return self.temperature < _GREEDY_BELOW


def _demand(holds: bool, message: str) -> None:
    if not holds:
        raise RequestError(message)
