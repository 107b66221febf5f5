"""`PrefixCache`: which blocks later prompts find, which are held, and which go first when room is needed.

Does not know time. Blocks of one run are counted, not listed: they are evicted from the run's end, runs in the order of
their last release, a sequence's last run before its first, as `engine/bundled/block_manager.py` does block by block.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from engine.simulator.prefix_paths import PrefixPaths


class Match(NamedTuple):
    """Leading blocks of a request that are cached, and those among them that nobody holds."""

    num_blocks: int
    num_revived: int


class PrefixCache:
    """Counts of cached blocks by run."""

    def __init__(self, paths: PrefixPaths) -> None:
        self._shared, self._tails = paths.shared, paths.tails
        self._cached = [0] * paths.num_nodes
        self._references = [0] * paths.num_nodes
        self._free: OrderedDict[int, None] = OrderedDict()  # runs nobody holds, next victim first
        self._held: dict[int, list[int]] = {}  # request to the runs it holds
        self.num_held_blocks = 0
        self.num_free_blocks = 0

    def match(self, request: int, max_blocks: int) -> Match:
        """The longest cached prefix, at most `max_blocks`."""
        num_blocks = num_revived = 0
        for node, start, end in (*self._shared[request], self._tails[request]):
            found = min(self._cached[node], max_blocks - start)
            if found <= 0:
                break
            num_blocks += found
            if not self._references[node]:
                num_revived += self._cached[node]
            if start + found < end:
                break
        return Match(num_blocks, num_revived)

    def hold(self, request: int, num_blocks: int) -> None:
        """Keep the first blocks, found by `match`, from eviction; a partly matched run is held as far as it goes."""
        held = self._held[request] = []
        for node, start, _ in (*self._shared[request], self._tails[request]):
            if start >= num_blocks:
                break
            self._hold_run(node, held)

    def add(self, request: int, num_blocks: int) -> int:
        """The request has computed its first `num_blocks`; how many of its own blocks the cache takes over."""
        taken = 0
        held = self._held[request]
        for node, start, end in self._shared[request]:
            if start >= num_blocks:
                return taken
            taken += self._extend(node, min(end, num_blocks) - start, held)
        tail = self._tails[request]
        if tail.start < num_blocks:
            taken += self._extend(tail.node, num_blocks - tail.start, held)
        return taken

    def release(self, request: int) -> None:
        """Let go of everything the request holds."""
        for node in reversed(self._held.pop(request)):
            self._references[node] -= 1
            if not self._references[node]:
                self._free[node] = None
                self.num_free_blocks += self._cached[node]
                self.num_held_blocks -= self._cached[node]

    def evict_down_to(self, num_blocks: int) -> None:
        """Forget blocks nobody holds until at most `num_blocks` of them are left."""
        num_blocks = max(num_blocks, 0)
        while self.num_free_blocks > num_blocks:
            node = next(iter(self._free))
            gone = min(self.num_free_blocks - num_blocks, self._cached[node])
            self._cached[node] -= gone
            self.num_free_blocks -= gone
            if not self._cached[node]:
                del self._free[node]

    def _hold_run(self, node: int, held: list[int]) -> None:
        if not self._references[node] and node in self._free:
            del self._free[node]
            self.num_free_blocks -= self._cached[node]
            self.num_held_blocks += self._cached[node]
        self._references[node] += 1
        held.append(node)

    def _extend(self, node: int, num_blocks: int, held: list[int]) -> int:
        """Make a run's first `num_blocks` cached, held by this request if it had to give blocks for it."""
        taken = num_blocks - self._cached[node]
        if taken <= 0:
            return 0
        if node not in held:
            self._hold_run(node, held)
        self._cached[node] = num_blocks
        self.num_held_blocks += taken
        return taken

    def check_integrity(self) -> None:
        """Assert that the counts are those of the runs."""
        held = sum(c for c, r in zip(self._cached, self._references, strict=True) if r)
        free = sum(c for c, r in zip(self._cached, self._references, strict=True) if not r)
        assert held == self.num_held_blocks, "held blocks are miscounted"
        assert free == self.num_free_blocks, "free cached blocks are miscounted"
        assert all(not self._references[node] for node in self._free), "a held run could be evicted"
