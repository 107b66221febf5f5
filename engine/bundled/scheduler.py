"""`Scheduler`: which sequences compute how many tokens in the next step, under one token budget.

Does not know tensors or drawing. Running sequences come before waiting ones, as in vLLM V1; in which order who
waits, and who is preempted first, is the policy's (`waiting_queue.py`).
"""

from __future__ import annotations

import bisect
from typing import NamedTuple

from engine.bundled.block_manager import BlockManager
from engine.bundled.draft_length import make_draft_length
from engine.bundled.sequence import Sequence, SequenceStatus
from engine.bundled.waiting_queue import make_waiting_queue
from engine.config import EngineConfig


class ScheduledSequence(NamedTuple):
    """One sequence's share of a step."""

    sequence: Sequence
    num_tokens: int  # known tokens to compute, from num_computed_tokens on
    max_draft_tokens: int  # further tokens that may be drafted and verified; their blocks are reserved
    max_draft_depth: int = 0  # how many of those may follow one another: all, unless the draft is a tree
    min_draft_chance: float = 0.0  # of being kept, below which a tree's token does not pay

    @property
    def num_prompt_tokens(self) -> int:
        """How many of `num_tokens` belong to the prompt."""
        return max(0, min(self.num_tokens, self.sequence.num_prompt_tokens - self.sequence.num_computed_tokens))

    @property
    def draws(self) -> bool:
        """Whether this step reaches the last known token, so that the next one is drawn."""
        return self.num_tokens == self.sequence.num_uncomputed_tokens

    @property
    def decodes(self) -> bool:
        """Whether this is one more token of an answer under way, not a prompt's."""
        return self.num_tokens == 1 and self.draws and self.sequence.num_output_tokens > 0


class Scheduler:
    """Continuous batching with chunked prefill, prefix caching and preemption by recomputation."""

    def __init__(
        self, config: EngineConfig, block_manager: BlockManager, *, max_model_len: int, shares_draft_cache: bool = False
    ) -> None:
        self.block_manager = block_manager
        self.max_num_seqs = config.max_num_seqs
        self.max_num_batched_tokens = config.max_num_batched_tokens
        self.max_loras = config.max_loras
        self.enable_chunked_prefill = config.enable_chunked_prefill
        self.max_model_len = max_model_len
        self.draft_length = make_draft_length(config.speculative_config)
        self.tree_nodes = None if config.speculative_config is None else config.speculative_config.tree_nodes
        self.shares_draft_cache = shares_draft_cache  # cached blocks hold a draft's keys and values too
        self.waiting = make_waiting_queue(config.scheduling_policy)
        self.running: list[Sequence] = []  # by the policy's rank
        self.num_arrived = 0
        self.num_preemptions = 0
        self.prefix_cache_queries = 0
        self.prefix_cache_hits = 0

    def add(self, sequence: Sequence) -> None:
        sequence.arrival = self.num_arrived
        self.num_arrived += 1
        self.waiting.add(sequence)

    def has_unfinished(self) -> bool:
        return bool(self.running or len(self.waiting))

    def schedule(self) -> list[ScheduledSequence]:
        """Fill the step's budget; empty only when nothing is unfinished."""
        preempted_before = self.num_preemptions
        scheduled, budget = self._schedule_running(self.max_num_batched_tokens)
        if self.num_preemptions == preempted_before:
            scheduled += self._schedule_waiting(budget)
        assert scheduled or not self.has_unfinished(), "a step makes progress"
        return scheduled

    def advance(self, item: ScheduledSequence, new_token_ids: list[int]) -> None:
        """Take over a step's result: the drafts among `new_token_ids` were computed, the last one was not."""
        sequence = item.sequence
        self.waiting.served(sequence, num_prompt_tokens=item.num_prompt_tokens, num_output_tokens=len(new_token_ids))
        sequence.token_ids.extend(new_token_ids)
        sequence.num_computed_tokens += item.num_tokens + max(len(new_token_ids) - 1, 0)
        sequence.num_draft_computed_tokens = min(sequence.num_draft_computed_tokens, sequence.num_computed_tokens)
        both = sequence.num_draft_computed_tokens if self.shares_draft_cache else sequence.num_computed_tokens
        self.block_manager.register(sequence, both)

    def finish(self, sequence: Sequence) -> None:
        """Let go of a sequence, wherever it is."""
        if sequence.status is SequenceStatus.RUNNING:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        self.block_manager.release(sequence)
        sequence.status = SequenceStatus.FINISHED

    def _schedule_running(self, budget: int) -> tuple[list[ScheduledSequence], int]:
        scheduled: list[ScheduledSequence] = []
        index = 0
        while index < len(self.running) and budget > 0:
            num_behind = len(self.running) - index - 1
            item = self._fit(self.running[index], budget, num_behind)
            if item is None:
                self._preempt_last()
                continue
            scheduled.append(item)
            budget -= item.num_tokens + item.max_draft_tokens
            index += 1
        return scheduled, budget

    def _fit(self, sequence: Sequence, budget: int, num_behind: int) -> ScheduledSequence | None:
        """Reserve blocks for as much of a running sequence as the budget allows; None when there are none.

        Drafts leave one token to each of the `num_behind` sequences still to come: speculation starves nobody.
        """
        num_tokens = min(sequence.num_uncomputed_tokens, budget)
        end = sequence.num_computed_tokens + num_tokens
        depth = self._draftable(sequence)
        wanted = depth if self.tree_nodes is None or not depth else self.tree_nodes
        num_drafts = min(wanted, max(0, budget - num_tokens - num_behind))
        if num_drafts and not self.block_manager.can_append(sequence, end + num_drafts):
            num_drafts = 0
        if not self.block_manager.can_append(sequence, end + num_drafts):
            return None
        self.block_manager.append(sequence, end + num_drafts)
        return ScheduledSequence(
            sequence, num_tokens, num_drafts, min(depth, num_drafts), self.draft_length.min_chance()
        )

    def _draftable(self, sequence: Sequence) -> int:
        """Drafts in a row worth verifying: with all accepted, the bonus token must still be wanted."""
        if sequence.num_uncomputed_tokens != 1 or sequence.grammar is not None:
            return 0  # what a grammar allows depends on the token before, which a draft only guesses
        wanted = sequence.params.max_tokens - sequence.num_output_tokens - 1
        room = self.max_model_len - sequence.num_tokens - 1
        return max(0, min(self.draft_length.of(sequence), wanted, room))

    def _preempt_last(self) -> None:
        victim = self.running.pop()
        self.block_manager.release(victim)
        victim.forget_computed()
        self.waiting.add_preempted(victim)
        self.num_preemptions += 1

    def _schedule_waiting(self, budget: int) -> list[ScheduledSequence]:
        scheduled: list[ScheduledSequence] = []
        while len(self.waiting) and budget > 0 and len(self.running) < self.max_num_seqs:
            first = self.waiting.first()
            sequence = self._next_with_adapter_place(first)
            item = None if sequence is None else self._admit(sequence, budget)
            if item is None:
                break
            first.num_overtaken += item.sequence is not first and item.sequence.adapter >= 0
            self.waiting.remove(item.sequence)
            bisect.insort(self.running, item.sequence, key=self.waiting.rank)
            scheduled.append(item)
            budget -= item.num_tokens
        return scheduled

    def _next_with_adapter_place(self, first: Sequence) -> Sequence | None:
        """The first in line; while a step has no place for its adapter, the next that needs no place of its own.

        `max_num_seqs` requests for adapters that have theirs may overtake it. More might keep it waiting for ever;
        those for the base model keep no adapter's place.
        """
        held = {other.adapter for other in self.running if other.adapter >= 0}
        if first.adapter < 0 or first.adapter in held or len(held) < self.max_loras:
            return first
        may_overtake = {-1, *held} if first.num_overtaken < self.max_num_seqs else {-1}
        return next((other for other in self.waiting if other.adapter in may_overtake), None)

    def _admit(self, sequence: Sequence, budget: int) -> ScheduledSequence | None:
        """Start a waiting sequence on its cached prefix; None when budget or blocks do not suffice."""
        cached = [] if sequence.wants_prompt_logprobs else self.block_manager.match_prefix(sequence)
        num_cached = len(cached) * self.block_manager.block_size
        num_tokens = min(sequence.num_tokens - num_cached, budget)
        if self._must_wait_for_budget(sequence.num_tokens - num_cached, budget):
            return None
        if not self.block_manager.can_admit(cached, num_cached + num_tokens):
            return None
        self.block_manager.admit(sequence, cached, num_cached + num_tokens)
        sequence.status = SequenceStatus.RUNNING
        sequence.num_computed_tokens = sequence.num_draft_computed_tokens = num_cached
        self._count_first_admission(sequence, num_cached)
        return ScheduledSequence(sequence, num_tokens, 0)

    def _must_wait_for_budget(self, num_tokens: int, budget: int) -> bool:
        """Without chunked prefill a prompt runs whole; only a preempted one beyond any budget is cut."""
        return not self.enable_chunked_prefill and budget < num_tokens <= self.max_num_batched_tokens

    def _count_first_admission(self, sequence: Sequence, num_cached: int) -> None:
        if sequence.num_cached_tokens is not None:
            return
        sequence.num_cached_tokens = num_cached
        if self.block_manager.enable_prefix_caching and not sequence.wants_prompt_logprobs:
            self.prefix_cache_queries += sequence.num_tokens
            self.prefix_cache_hits += num_cached
