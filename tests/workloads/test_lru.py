"""The hit-ratio curve against a cache that is really kept, block by block."""

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workload_cases import metadata

from workloads.lru import count_smaller, lru_curve
from workloads.metadata import PrefixHashing
from workloads.prefix_sharing import PrefixChains
from workloads.request import Request
from workloads.workload import Workload

HASHING = PrefixHashing(block_size=4, tail_hashed=False)


@given(st.lists(st.integers(-1, 9), min_size=1, max_size=40), st.data())
def test_counting_smaller_ones(values: list[int], data: st.DataObject) -> None:
    values = [min(value, len(values) - 1) for value in values]
    end, bound = data.draw(st.integers(0, len(values))), data.draw(st.integers(-1, len(values)))
    found = count_smaller(np.array(values), np.array([end]), np.array([bound]))
    assert found.tolist() == [sum(value < bound for value in values[:end])]


def simulated(requests: list[list[int]], capacity: int) -> int:
    """Hit tokens of a cache of so many blocks: looked up whole, then used from the last block to the first."""
    cache: OrderedDict[tuple[int, ...], None] = OrderedDict()
    hits = 0
    for blocks in requests:
        chains = [tuple(blocks[: i + 1]) for i in range(len(blocks))]
        for chain in chains:
            if chain not in cache:
                break
            hits += 4
        for chain in reversed(chains):
            cache[chain] = None
            cache.move_to_end(chain)
        while len(cache) > capacity:
            cache.popitem(last=False)
    return hits


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=2, max_size=40))
def test_every_point_is_what_a_kept_cache_of_that_size_hits(
    requests: list[list[int]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workloads.lru.SMALLEST_BLOCKS", 1)
        made = [
            Request(request_id=str(i), input_tokens=4 * len(h) + 1, prefix_hashes=tuple(h))
            for i, h in enumerate(requests)
        ]
        chains = PrefixChains(HASHING)
        chains.feed(Workload.from_requests(made, metadata(prefix=HASHING)).table)
        blocks, ideal = chains.blocks(), chains.result()
        assert blocks is not None
        assert ideal is not None
        curve = lru_curve(blocks)
    total = sum(4 * len(h) + 1 for h in requests)
    for capacity, ratio in curve:
        assert ratio == pytest.approx(simulated(requests, capacity // 4) / total)
    assert curve[-1].hit_ratio == pytest.approx(ideal.ideal_hit_ratio)
