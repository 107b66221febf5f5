"""`BlockManager`: who holds which KV block, and which full blocks later prompts may share.

Does not know tensors: a block is a number. Hashes are chained, so a block's hash names its whole prefix, and the LoRA
adapter that its keys and values were computed with.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from hashlib import blake2b

from engine.bundled.sequence import Sequence


class BlockManager:
    """Reference-counted blocks with a prefix cache over full ones; free cached blocks are evicted oldest first."""

    def __init__(self, num_blocks: int, block_size: int, *, enable_prefix_caching: bool) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.enable_prefix_caching = enable_prefix_caching
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))  # next victim first
        self._references = [0] * num_blocks
        self._hash_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}

    @property
    def num_free_blocks(self) -> int:
        return len(self._free)

    @property
    def usage(self) -> float:
        """Share of blocks held by sequences, 0 to 1."""
        return 1.0 - len(self._free) / self.num_blocks

    def match_prefix(self, sequence: Sequence) -> list[int]:
        """Cached blocks of the longest known prefix, leaving at least the last token to compute."""
        if not self.enable_prefix_caching:
            return []
        limit = (sequence.num_tokens - 1) // self.block_size
        self._hash_full_blocks(sequence, limit)
        found: list[int] = []
        for block_hash in sequence.block_hashes[:limit]:
            block = self._block_of.get(block_hash)
            if block is None:
                break
            found.append(block)
        return found

    def can_admit(self, cached: list[int], num_tokens: int) -> bool:
        """Whether a new sequence of `num_tokens` fits on top of its cached blocks."""
        revived = sum(1 for block in cached if self._references[block] == 0)
        return self._blocks_for(num_tokens) - len(cached) <= len(self._free) - revived

    def admit(self, sequence: Sequence, cached: list[int], num_tokens: int) -> None:
        """Give a sequence without blocks its cached ones and room for `num_tokens` in all."""
        assert not sequence.block_table, "a sequence is admitted once"
        for block in cached:
            if self._references[block] == 0:
                del self._free[block]
            self._references[block] += 1
        sequence.block_table.extend(cached)
        sequence.num_registered_blocks = len(cached)
        self.append(sequence, num_tokens)

    def can_append(self, sequence: Sequence, num_tokens: int) -> bool:
        """Whether the sequence can grow to room for `num_tokens` in all."""
        return self._blocks_for(num_tokens) - len(sequence.block_table) <= len(self._free)

    def append(self, sequence: Sequence, num_tokens: int) -> None:
        """Grow to room for `num_tokens` in all; ask `can_append` first."""
        for _ in range(self._blocks_for(num_tokens) - len(sequence.block_table)):
            sequence.block_table.append(self._take())

    def release(self, sequence: Sequence) -> None:
        """Give all blocks back; the tail becomes the next victim before the prefix does."""
        for block in reversed(sequence.block_table):
            self._references[block] -= 1
            if self._references[block] == 0:
                self._free[block] = None
                if block not in self._hash_of:
                    self._free.move_to_end(block, last=False)
        sequence.block_table.clear()

    def register(self, sequence: Sequence, num_tokens: int) -> None:
        """Let later prompts share the full blocks among the first `num_tokens`, whose KV is now written."""
        if not self.enable_prefix_caching:
            return
        num_full = num_tokens // self.block_size
        self._hash_full_blocks(sequence, num_full)
        for index in range(sequence.num_registered_blocks, num_full):
            block, block_hash = sequence.block_table[index], sequence.block_hashes[index]
            if block not in self._hash_of and block_hash not in self._block_of:
                self._hash_of[block] = block_hash
                self._block_of[block_hash] = block
        sequence.num_registered_blocks = max(num_full, sequence.num_registered_blocks)

    def reset(self) -> bool:
        """Forget all cached prefixes; refused (False) while any sequence holds a block."""
        if len(self._free) != self.num_blocks:
            return False
        self._hash_of.clear()
        self._block_of.clear()
        return True

    def check_integrity(self, sequences: list[Sequence]) -> None:
        """Assert that every block is either free or held exactly as often as `sequences` say."""
        held = [0] * self.num_blocks
        for sequence in sequences:
            assert len(set(sequence.block_table)) == len(sequence.block_table), "a table holds a block twice"
            for block in sequence.block_table:
                held[block] += 1
        assert held == self._references, "reference counts disagree with the block tables"
        assert set(self._free) == {b for b in range(self.num_blocks) if held[b] == 0}, "free list is wrong"
        assert {b: h for h, b in self._block_of.items()} == self._hash_of, "hash maps are not inverse"

    def _blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def _take(self) -> int:
        block, _ = self._free.popitem(last=False)
        block_hash = self._hash_of.pop(block, None)
        if block_hash is not None:
            del self._block_of[block_hash]
        self._references[block] = 1
        return block

    def _hash_full_blocks(self, sequence: Sequence, num_full: int) -> None:
        size = self.block_size
        for index in range(len(sequence.block_hashes), num_full):
            parent = sequence.block_hashes[-1] if index else _root(sequence)
            tokens = array("i", sequence.token_ids[index * size : (index + 1) * size]).tobytes()
            sequence.block_hashes.append(blake2b(parent + tokens, digest_size=16).digest())


def _root(sequence: Sequence) -> bytes:
    return b"" if sequence.adapter < 0 else b"adapter %d" % sequence.adapter
