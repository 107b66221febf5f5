"""`PrefillInstance`: a server that computes prompts and sends their KV away; of each answer it draws one token.

Does not know decode instances. One transfer at a time leaves it, in the order in which prompts were done; a prompt's
blocks stay until they are sent, while its place among the running ones is free at once. An answer of one token ends
here and nothing is sent. A prompt that finds no block for its next chunk waits for a transfer to end, with what it has:
nothing is preempted, so that slow links cannot make it compute the same chunks over and over.
"""

from __future__ import annotations

from dataclasses import replace
from heapq import heappop, heappush
from math import inf

from engine.simulator.instance_split import InstanceSplit
from engine.simulator.oracle import StepTimeOracle
from engine.simulator.server import SimulatedServer
from engine.simulator.settings import SchedulerSettings
from engine.simulator.traffic import Traffic


class PrefillInstance(SimulatedServer):
    """`sent_s` says when a request's KV has reached the other side; infinity where nothing is sent."""

    def __init__(
        self, traffic: Traffic, settings: SchedulerSettings, oracle: StepTimeOracle, split: InstanceSplit
    ) -> None:
        super().__init__(traffic, replace(settings, acceptance=None), oracle)
        self.sent_s = [inf] * len(traffic)
        self._split = split
        self._goes_on = [tokens > 1 for tokens in self._outputs]
        self._outputs = [1] * len(traffic)
        self._link_free_s = 0.0
        self._sending: list[tuple[float, int, int]] = []  # sent at, request, its blocks that the cache does not count
        self._prompt_waits = False  # the one under way, for blocks

    @property
    def next_s(self) -> float:
        """When its next step begins; infinity without work."""
        if not self.num_unfinished:
            return inf
        return max(self.now_s, self._sending[0][0]) if self._is_stuck else self.now_s

    @property
    def _is_stuck(self) -> bool:
        """Whether nothing can be computed until a transfer has ended."""
        return self._prompt_waits if self._prefilling >= 0 else bool(self._waiting) and self._blocked

    def submit(self, request: int, arrival_s: float) -> None:
        if self._is_stuck:
            self.now_s = max(self.now_s, arrival_s)
        super().submit(request, arrival_s)

    def advance(self, until_s: float, *, pause_at_end: bool = False) -> list[int]:
        ended: list[int] = []
        while (start_s := self.next_s) < until_s:
            self.now_s = start_s
            self._free_what_is_sent()
            self._step(ended)
            if pause_at_end and ended:
                break
        return ended

    def _free_what_is_sent(self) -> None:
        while self._sending and self._sending[0][0] <= self.now_s:
            _, request, num_own = heappop(self._sending)
            self._prompt_blocks -= num_own
            if self._cache is not None:
                self._cache.release(request)
            self._blocked = self._prompt_waits = False

    def _let_go(self, request: int, num_computed: int) -> None:
        """Of a prompt's blocks when they are sent, or at once where they are not needed elsewhere."""
        if not self._goes_on[request]:
            super()._let_go(request, num_computed)
            return
        self.log.stints.pop()  # the token that was just noted is drawn again where the answer goes on
        num_blocks = -(-num_computed // self.settings.block_size)
        num_own = num_blocks - self._shared[request]
        self._prompt_blocks += num_own
        self._link_free_s = max(self.now_s, self._link_free_s) + self._split.transfer_s(num_blocks)
        self.sent_s[request] = self._link_free_s
        heappush(self._sending, (self._link_free_s, request, num_own))

    def _preempt(self, request: int) -> None:
        """Nobody decodes here, so this is the prompt under way: it keeps what it has."""
        assert request == self._prefilling, "only the prompt under way can lack blocks"
        self._prompt_waits = True
