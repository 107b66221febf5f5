"""The block manager under random use: its books always balance, and shared blocks hold what they say."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.bundled.block_manager import BlockManager
from engine.bundled.sampling_params import SamplingParams
from engine.bundled.sequence import Sequence

NUM_BLOCKS, BLOCK_SIZE = 12, 3


def sequence(token_ids: list[int]) -> Sequence:
    return Sequence("one", token_ids, SamplingParams(), seed=0, eos=())


class BlockManagerMachine(RuleBasedStateMachine):
    """Sequences over two tokens only, so that prefixes collide all the time."""

    def __init__(self) -> None:
        super().__init__()
        self.manager = BlockManager(NUM_BLOCKS, BLOCK_SIZE, enable_prefix_caching=True)
        self.alive: list[Sequence] = []
        self.written: dict[int, tuple[int, ...]] = {}  # block: the whole prefix whose KV it holds

    @rule(token_ids=st.lists(st.integers(0, 1), min_size=1, max_size=20))
    def admit(self, token_ids: list[int]) -> None:
        new = sequence(token_ids)
        cached = self.manager.match_prefix(new)
        assert len(cached) * BLOCK_SIZE < len(token_ids), "the last token is computed"
        for index, block in enumerate(cached):
            assert self.written[block] == tuple(token_ids[: (index + 1) * BLOCK_SIZE]), "a hit holds that prefix"
        if self.manager.can_admit(cached, len(token_ids)):
            self.manager.admit(new, cached, len(token_ids))
            self._write(new, len(token_ids))
            self.alive.append(new)

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), token_id=st.integers(0, 1), lookahead=st.integers(0, 4))
    def append(self, data: st.DataObject, token_id: int, lookahead: int) -> None:
        growing = data.draw(st.sampled_from(self.alive))
        num_tokens = growing.num_tokens + 1
        if self.manager.can_append(growing, num_tokens + lookahead):
            growing.token_ids.append(token_id)
            self.manager.append(growing, num_tokens + lookahead)
            self._write(growing, num_tokens)

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(self.alive))
        self.alive = [kept for kept in self.alive if kept is not gone]
        self.manager.release(gone)

    @rule()
    def reset(self) -> None:
        assert self.manager.reset() == (not self.alive)

    @invariant()
    def books_balance(self) -> None:
        self.manager.check_integrity(self.alive)
        assert self.manager.num_free_blocks <= NUM_BLOCKS

    def _write(self, owner: Sequence, num_tokens: int) -> None:
        for index in range(num_tokens // BLOCK_SIZE):
            prefix = tuple(owner.token_ids[: (index + 1) * BLOCK_SIZE])
            block = owner.block_table[index]
            shared = any(block in other.block_table for other in self.alive if other is not owner)
            assert not shared or self.written[block] == prefix, "a shared block is never overwritten"
            self.written[block] = prefix
        self.manager.register(owner, num_tokens)


TestBlockManager = BlockManagerMachine.TestCase
TestBlockManager.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_the_oldest_free_prefix_is_evicted_first_and_its_tail_before_its_head() -> None:
    manager = BlockManager(4, 2, enable_prefix_caching=True)
    first, second = sequence([1, 2, 3, 4]), sequence([5, 6, 7, 8])
    for one in (first, second):
        manager.admit(one, [], 4)
        manager.register(one, 4)
    for one in (first, second):
        manager.release(one)
    manager.admit(sequence([9, 9]), [], 2)
    assert len(manager.match_prefix(sequence([1, 2, 3, 4, 0]))) == 1
    assert len(manager.match_prefix(sequence([5, 6, 7, 8, 0]))) == 2


def test_equal_blocks_under_different_prefixes_are_not_shared() -> None:
    manager = BlockManager(8, 2, enable_prefix_caching=True)
    one = sequence([1, 2, 3, 4])
    manager.admit(one, [], 4)
    manager.register(one, 4)
    assert manager.match_prefix(sequence([3, 4, 0])) == []
    assert manager.match_prefix(sequence([9, 9, 3, 4, 0])) == []


def test_nothing_is_shared_when_prefix_caching_is_off() -> None:
    manager = BlockManager(8, 2, enable_prefix_caching=False)
    one = sequence([1, 2, 3, 4])
    manager.admit(one, [], 4)
    manager.register(one, 4)
    assert manager.match_prefix(sequence([1, 2, 3, 4, 5])) == []
