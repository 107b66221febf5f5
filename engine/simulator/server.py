"""`SimulatedServer`: one replica's scheduler as a discrete-event model.

The rules are those of vLLM V1 and of `engine/bundled/scheduler.py`: running sequences first, oldest first, then waiting
ones, under one token budget; chunked prefill; admission by free KV blocks; preemption of the newest by recomputation.
Because the budget holds a token for every running sequence, at most one prompt is under way at a time and all others
decode in step. So a decoding sequence is only the tick at which it will end, and all steps until something happens (an
end, an arrival, a full cache) are one jump: work grows with requests, not with tokens.

Where it is simpler than an engine: a decoding sequence's blocks are counted from above by (tokens + block_size - 1) /
block_size, half a block too many on average; a prompt under way never stops answers of worse rank, as in vLLM (the
bundled engine computes in order of rank); under `fair`, who waits for blocks is chosen anew when some come free, not at
every step; drafts that the budget cuts off are accepted as if they were not; all steps of a jump lie on the line
between its first and its last.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from math import ceil, inf, nextafter

import numpy as np

from engine.simulator.acceptance import AnswerSteps
from engine.simulator.decoding import SLACK, Decoding, steps_within
from engine.simulator.oracle import StepTimeOracle
from engine.simulator.prefix_cache import PrefixCache
from engine.simulator.prefix_paths import prefix_paths
from engine.simulator.request_limits import refuse_what_never_fits
from engine.simulator.settings import SchedulerSettings
from engine.simulator.stints import Stints
from engine.simulator.tick_log import TickLog
from engine.simulator.traffic import Traffic
from engine.simulator.waiting_lines import FairToClients, make_waiting_line


class SimulatedServer:
    """Requests are numbers of the traffic's rows; `submit` them in order of arrival and `advance` in between.

    Args:
        interruptible: let no jump pass the time given to `advance`, even when nothing could happen there.

    Raises:
        SimulatorError: a request that no empty cache could hold, or no step where chunked prefill is off.
    """

    def __init__(
        self, traffic: Traffic, settings: SchedulerSettings, oracle: StepTimeOracle, *, interruptible: bool = False
    ) -> None:
        refuse_what_never_fits(traffic, settings)
        self.settings = settings
        self.now_s = 0.0
        self.busy_s = 0.0
        self.log = TickLog(settings.delivery_share)
        self._delivered_s = 0.0  # when the last step's tokens have arrived
        self.first_token_s = [inf] * len(traffic)
        self.end_s = [inf] * len(traffic)
        self.num_preemptions = [0] * len(traffic)
        self.num_cached_tokens = [-1] * len(traffic)  # found at first admission
        self.num_running = 0
        self._step_s = oracle.step_s
        self._interruptible = interruptible or settings.scheduling_policy != "fcfs"
        self._inputs: list[int] = traffic.input_tokens.tolist()
        self._outputs: list[int] = traffic.output_tokens.tolist()
        self._drafts = settings.num_draft_tokens
        self._drafted_share = settings.acceptance.drafted_share if settings.acceptance else 0.0
        self._answer_steps = AnswerSteps(settings.acceptance, settings.seed, traffic.tokens_per_step)
        self._cache = (
            PrefixCache(prefix_paths(traffic, settings.block_size)) if settings.enable_prefix_caching else None
        )
        by_priority = settings.scheduling_policy == "priority" and traffic.priority is not None
        ranks = traffic.priority if by_priority and traffic.priority is not None else np.zeros(len(traffic), np.int64)
        self._waiting = make_waiting_line(settings.scheduling_policy, ranks=ranks, clients=traffic.client)
        self._accounts = self._waiting if isinstance(self._waiting, FairToClients) else None
        self._orders = [0] * len(traffic)
        self._first_tick = [0] * len(traffic)  # from which a request may be admitted
        self._num_submitted = 0
        self._blocked = False  # the first in the queue waits until somebody lets go of blocks or budget
        self._stints = Stints(ranks.tolist(), by_priority=by_priority)
        self._stint_of = self._stints.current
        self._prefilling = -1  # the request whose prompt is under way
        self._prefilled = 0  # its computed tokens
        self._prompt_blocks = 0  # of prompts that are computed in this step or under way, the cache's left out
        self._received = [0] * len(traffic)  # tokens whose KV another instance computed, used at first admission
        self._shared = [0] * len(traffic)  # blocks of a running request that the cache counts
        self._num_shared = 0  # of all decoding sequences
        self._ends: list[tuple[int, int, int]] = []  # tick, request, stint; some are stale
        self._decodings: dict[int, Decoding] = {}
        self._emitted = [0] * len(traffic)  # tokens known when it was last admitted or began to decode
        self._tick = 0
        self._earliest_end: tuple[tuple[int, int], float] = ((-1, -1), inf)  # of which tick and number of submissions
        self._context = 0.0  # computed tokens of all decoding sequences
        self._rate = 0.0  # tokens that all of them gain a tick

    @property
    def num_unfinished(self) -> int:
        """Running and waiting requests."""
        return self.num_running + len(self._waiting)

    @property
    def earliest_end_s(self) -> float:
        """No request ends before this time, whatever comes; infinity when there are none."""
        state = self._tick, self._num_submitted
        if self._earliest_end[0] != state:
            self._earliest_end = state, self._find_earliest_end_s()
        return self._earliest_end[1]

    def _find_earliest_end_s(self) -> float:
        if not self.num_unfinished:
            return inf
        if self._prefilling >= 0 or self._may_admit() or not self._decodings:
            return self.now_s
        self._drop_stale_ends()
        room = (self.settings.num_blocks - self.used_blocks) * self.settings.block_size
        steps = min(self._ends[0][0] - self._tick, 1 + int(max(0.0, room) / self._rate))  # who is preempted slows none
        return self.now_s + steps * self._step_s(0, 0, 0, len(self._decodings), self._context, 0)

    @property
    def used_blocks(self) -> float:
        """Blocks held by sequences, with the next step's tokens of the decoding ones; an upper bound."""
        size, held = self.settings.block_size, self._cache.num_held_blocks if self._cache else 0
        decoding = (self._context + len(self._decodings) * (size + self._drafts)) / size - self._num_shared
        return held + self._prompt_blocks + decoding

    def submit(self, request: int, arrival_s: float) -> None:
        """Queue a request; an idle server's clock moves to its arrival."""
        if not self.num_running and not self._waiting and self.now_s < arrival_s:
            self.now_s = arrival_s
        self._num_submitted += 1
        self._orders[request] = self._num_submitted
        self._first_tick[request] = self._tick + (self.settings.async_scheduling and self.num_running > 0)
        self._waiting.add(request, self._num_submitted, self._tick)
        if self._waiting.first(self._tick) == request:
            self._blocked = False

    def cached_blocks(self, request: int) -> int:
        """Leading blocks of a request's prompt that are cached here now."""
        if self._cache is None:
            return 0
        return self._cache.match(request, (self._inputs[request] - 1) // self.settings.block_size).num_blocks

    def advance(self, until_s: float, *, pause_at_end: bool = False) -> list[int]:
        """Run until the clock has reached `until_s` or nothing is left to do; the requests that ended.

        Args:
            pause_at_end: return as soon as a request has ended.
        """
        ended: list[int] = []
        while self.now_s < until_s and (self.num_running or self._waiting):
            if self._prefilling >= 0 or (self._may_admit() and self._is_seen()):
                self._step(ended)
            else:
                self._jump(until_s, ended)
            if pause_at_end and ended:
                break
        return ended

    def _may_admit(self) -> bool:
        """Whether somebody waits who is not known to find no room."""
        return bool(self._waiting) and not self._blocked and self.num_running < self.settings.max_num_seqs

    def _is_seen(self) -> bool:
        """Whether the first in the queue came before the step that begins was scheduled."""
        return not self.num_running or self._first_tick[self._waiting.first(self._tick)] <= self._tick

    def _step(self, ended: list[int]) -> None:
        """One step in which prompts are computed."""
        preempted = self._make_room()
        decoding, context = len(self._decodings), self._context
        limit = self.settings.max_num_batched_tokens
        reserved = min(decoding * self._drafts, limit - decoding)
        drafts, budget = reserved * self._drafted_share, limit - decoding - reserved
        ready: list[int] = []
        num_seqs = num_tokens = num_context = 0
        if self._prefilling >= 0 and budget:
            num_context = self._prefilled
            num_tokens = self._continue(budget, ready)
            num_seqs, preempted = 1, preempted or not num_tokens
        while self._waiting and num_tokens < budget and self.num_running < self.settings.max_num_seqs and not preempted:
            if not self._is_seen():
                break
            admitted = self._admit(budget - num_tokens, ready)
            if admitted is None:
                self._blocked = self._blocked or not num_tokens
                break
            num_seqs += 1
            num_context += admitted[0]
            num_tokens += admitted[1]
        if num_tokens:
            duration_s = self._step_s(num_seqs, num_tokens, num_context, decoding, context, drafts)
        elif decoding:
            duration_s = self._step_s(0, 0, 0, decoding, context, drafts)
        else:
            return  # what was under way was preempted, or nobody could be admitted
        self._run_steps(1, duration_s, 0.0, ended)
        if self._accounts is not None:
            self._accounts.end_step(self._tick)
        for request in ready:
            self._begin_decoding(request, ended)

    def _jump(self, until_s: float, ended: list[int]) -> None:
        """As many decode steps as nothing interrupts."""
        if self._make_room():
            return
        settings, rate, ends = self.settings, self._rate, self._ends
        self._drop_stale_ends()
        decoding, context = len(self._decodings), self._context
        drafts = min(decoding * self._drafts, settings.max_num_batched_tokens - decoding) * self._drafted_share
        room = (settings.num_blocks - self.used_blocks) * settings.block_size
        steps = min(ends[0][0] - self._tick, 1 + int((room + SLACK) / rate))
        if self._may_admit():
            steps = 1  # the first in the queue is seen from the next step on
        first_s = self._step_s(0, 0, 0, decoding, context, drafts)
        growth_s = 0.0
        if steps > 1:
            last_s = self._step_s(0, 0, 0, decoding, context + (steps - 1) * rate, drafts)
            growth_s = (last_s - first_s) / (steps - 1)
            left_s = until_s - self.now_s
            if left_s < steps * (first_s + last_s) / 2 and (
                self._interruptible or not (self._blocked or self.num_running >= settings.max_num_seqs)
            ):
                steps = min(steps, steps_within(left_s, first_s, growth_s))
        self._run_steps(steps, first_s, growth_s, ended)

    def _drop_stale_ends(self) -> None:
        ends = self._ends
        while self._stint_of[ends[0][1]] != ends[0][2]:
            heappop(ends)

    def _run_steps(self, steps: int, first_s: float, growth_s: float, ended: list[int]) -> None:
        """Let time pass, and end what ends with it."""
        self.log.add_steps(self._tick, self.now_s, first_s, growth_s)
        duration_s = steps * first_s + growth_s * (steps * (steps - 1) / 2)
        self.now_s += duration_s
        self._delivered_s = self.now_s + self.settings.delivery_share * (first_s + growth_s * (steps - 1))
        self.busy_s += duration_s
        self._tick += steps
        self._context += steps * self._rate
        ends, tick = self._ends, self._tick
        while ends and ends[0][0] <= tick:
            _, request, stint = heappop(ends)
            if self._stint_of[request] == stint:
                self._end(request, ended)

    def _admit(self, budget: int, ready: list[int]) -> tuple[int, int] | None:
        """Start the first waiting sequence: its cached and its computed tokens; None when it must wait."""
        settings, size, cache = self.settings, self.settings.block_size, self._cache
        request = self._waiting.first(self._tick)
        known = self._inputs[request] + self._emitted[request]
        used = ceil(self.used_blocks - SLACK)
        num_cached = num_revived = 0
        if cache is not None:
            cache.evict_down_to(settings.num_blocks - used)
            num_cached, num_revived = cache.match(request, (known - 1) // size)
        num_computed = max(num_cached * size, self._received[request])
        left = known - num_computed
        if not settings.enable_chunked_prefill and budget < left <= settings.max_num_batched_tokens:
            return None
        num_tokens = min(left, budget)
        needed = -(-(num_computed + num_tokens) // size) - num_cached
        if used + needed + num_revived > settings.num_blocks:
            self._blocked = True
            return None
        self._waiting.admit(request, self._tick)
        self._stints.start(request, self._orders[request])
        self.num_running += 1
        self._prompt_blocks += needed
        self._shared[request] = num_cached
        if cache is not None:
            cache.hold(request, num_cached)
        if self.num_cached_tokens[request] < 0:
            self.num_cached_tokens[request] = num_cached * size
        if num_tokens == left:
            ready.append(request)
        else:
            self._prefilling, self._prefilled = request, num_computed + num_tokens
        if self._accounts is not None:
            self._accounts.compute(request, min(num_tokens, self._inputs[request] - num_computed))
        return num_computed, num_tokens

    def _continue(self, budget: int, ready: list[int]) -> int:
        """Tokens computed of the prompt under way; 0 when there are no blocks for them and it was preempted."""
        request, size = self._prefilling, self.settings.block_size
        if self._cache is not None:
            added = self._cache.add(request, self._prefilled // size)
            self._shared[request] += added
            self._prompt_blocks -= added
        left = self._inputs[request] + self._emitted[request] - self._prefilled
        num_tokens = min(left, budget)
        needed = -(-(self._prefilled + num_tokens) // size) - -(-self._prefilled // size)
        if self.used_blocks + needed > self.settings.num_blocks + SLACK:
            self._preempt(request)
            return 0
        self._prompt_blocks += needed
        if self._accounts is not None:
            self._accounts.compute(request, min(num_tokens, self._inputs[request] - self._prefilled))
        self._prefilled += num_tokens
        if num_tokens == left:
            self._prefilling = -1
            ready.append(request)
        return num_tokens

    def _begin_decoding(self, request: int, ended: list[int]) -> None:
        """A prompt is computed: its next token has come, the others are still to come."""
        size, tick = self.settings.block_size, self._tick
        known = self._inputs[request] + self._emitted[request]
        self._prompt_blocks -= -(-known // size) - self._shared[request]
        if self._cache is not None:
            self._shared[request] += self._cache.add(request, known // size)
        self._emitted[request] += 1
        if self.first_token_s[request] == inf:
            self.first_token_s[request] = self._delivered_s
        left = self._outputs[request] - self._emitted[request]
        steps = self._answer_steps.of(request, left)
        self._decodings[request] = began = Decoding(tick, known, left, steps)
        if self._accounts is not None:
            self._accounts.begin(request, tick, tokens_per_tick=began.rate)
        self._context += known
        self._num_shared += self._shared[request]
        if left:
            self._rate += left / steps
            heappush(self._ends, (tick + steps, request, self._stint_of[request]))
        else:
            self._end(request, ended)

    def _end(self, request: int, ended: list[int]) -> None:
        self.end_s[request] = self._delivered_s
        self._stop(request)
        self._stint_of[request] = 0
        ended.append(request)

    def _stop(self, request: int) -> None:
        """A decoding sequence lets go of its blocks; what it computed stays cached."""
        began = self._decodings[request]
        gained = began.gained(self._tick)
        self.log.stints.append((request, began.tick, self._tick, 1 + gained))
        self._emitted[request] += gained
        if self._accounts is not None:
            self._accounts.end(request, self._tick, tokens_per_tick=began.rate)
        self._let_go(request, began.num_computed + gained)
        del self._decodings[request]
        if self._decodings:
            rate = began.rate
            self._context -= began.num_computed + (self._tick - began.tick) * rate
            self._rate -= rate
            self._num_shared -= self._shared[request]
        else:  # no rounding is carried on
            self._context, self._rate, self._num_shared = 0.0, 0.0, 0
        self.num_running -= 1
        self._blocked = False

    def _let_go(self, request: int, num_computed: int) -> None:
        """Of a sequence's blocks; those of what it computed stay cached until they are needed."""
        if self._cache is None:
            return
        added = self._cache.add(request, num_computed // self.settings.block_size)
        self._shared[request] += added
        self._num_shared += added
        self._cache.evict_down_to(self.settings.num_blocks - ceil(self.used_blocks - SLACK))
        self._cache.release(request)

    def _make_room(self) -> bool:
        """Preempt until every decoding sequence finds room for its next tokens; whether anybody was."""
        preempted = False
        while self._decodings and self.used_blocks > self.settings.num_blocks + SLACK:
            self._preempt(self._stints.take_newest())
            preempted = True
        return preempted

    def _preempt(self, request: int) -> None:
        """Back to the front of the queue; everything is computed anew but what is still cached by then."""
        if request == self._prefilling:
            size = self.settings.block_size
            self._prompt_blocks -= -(-self._prefilled // size) - self._shared[request]
            if self._cache is not None:  # all it computed was added when its turn came
                self._cache.release(request)
            self._prefilling = -1
            self.num_running -= 1
            self._blocked = False
        else:
            self._stop(request)
        self._stint_of[request] = 0
        self.num_preemptions[request] += 1
        self._waiting.add_preempted(request, self._orders[request])


def first_end_elsewhere_s(server: SimulatedServer, servers: Sequence[SimulatedServer]) -> float:
    """How far one may run before another's end could bring it a request: the one of least clock, a step at least."""
    others_s = min((other.earliest_end_s for other in servers if other is not server), default=inf)
    return max(others_s, nextafter(server.now_s, inf))
