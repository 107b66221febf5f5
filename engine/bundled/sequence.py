"""`Sequence`: one request's tokens and how far the engine has come with them.

Does not know scheduling policy or tensors.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from engine.bundled.outputs import TokenLogprob
from engine.bundled.sampling_params import SamplingParams

if TYPE_CHECKING:
    from engine.bundled.grammar import Grammar


class SequenceStatus(Enum):
    WAITING = auto()
    RUNNING = auto()
    FINISHED = auto()


class Standing(NamedTuple):
    """What a request claims among those that wait."""

    priority: int = 0  # smaller is sooner
    client: str = ""  # who asks; "" is everybody who does not say


ANYBODY = Standing()


class Sequence:
    """Prompt and drawn tokens of one request.

    Invariant: 0 <= num_computed_tokens < num_tokens while the sequence lives; the last token drawn is never
    computed before the step after it was drawn. `num_draft_computed_tokens` is the same for a draft model's cache.
    """

    def __init__(
        self,
        request_id: str,
        prompt_token_ids: list[int],
        params: SamplingParams,
        *,
        seed: int,
        eos: tuple[int, ...],
        grammar: Grammar | None = None,
        standing: Standing = ANYBODY,
        adapter: int = -1,
    ) -> None:
        self.request_id = request_id
        self.params = params
        self.seed = seed
        self.grammar = grammar
        self.standing = standing
        self.adapter = adapter  # the LoRA adapter's number; -1 is the base model
        self.arrival = 0  # its place in the order of arrival, given by the scheduler
        self.num_overtaken = 0  # times it was first in line, without a place for its adapter, and another was taken
        self.token_ids = list(prompt_token_ids)
        self.num_prompt_tokens = len(prompt_token_ids)
        self.masked_token_ids = tuple(sorted({*eos, *params.stop_token_ids}))  # until min_tokens were drawn
        self.stop_token_ids = frozenset(params.stop_token_ids if params.ignore_eos else self.masked_token_ids)
        self.status = SequenceStatus.WAITING
        self.num_computed_tokens = 0
        self.num_draft_computed_tokens = 0
        self.num_drafts_kept = self.num_drafts_tried = 0.0  # decaying counts of draft tokens
        self.num_cached_tokens: int | None = None  # prompt tokens found in the prefix cache at first admission
        self.prompt_logprobs: list[TokenLogprob | None] | None = None  # gathered chunk by chunk
        self.prompt_logprobs_delivered = False
        self.block_table: list[int] = []
        self.num_registered_blocks = 0  # leading blocks already offered to the prefix cache
        self.block_hashes: list[bytes] = []  # of full blocks, chained; grows as blocks fill

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def num_uncomputed_tokens(self) -> int:
        return len(self.token_ids) - self.num_computed_tokens

    @property
    def needs_prompt_logprobs(self) -> bool:
        return self.wants_prompt_logprobs and not self.prompt_logprobs_delivered

    @property
    def wants_prompt_logprobs(self) -> bool:
        return self.params.prompt_logprobs is not None

    def forget_computed(self) -> None:
        """What losing its blocks means: everything is computed anew."""
        self.num_computed_tokens = 0
        self.num_draft_computed_tokens = 0
        self.status = SequenceStatus.WAITING
