"""Hit ratio of a prefix cache that evicts the least recently used block, at every capacity at once.

Does not know engines: the whole capacity is taken to hold cached prefixes, none of it running requests.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from workloads.prefix_sharing import PrefixBlocks
from workloads.profile import CacheSize

Ints = npt.NDArray[np.int64]

LARGEST_TRACE = 1_000_000  # block accesses looked at: bounds memory and time
SMALLEST_BLOCKS = 64  # of the capacities


def lru_curve(blocks: PrefixBlocks) -> tuple[CacheSize, ...]:
    """Capacities by powers of two up to all distinct blocks, and the hit ratio that each gives.

    An access hits when fewer distinct blocks than the capacity were used since its block's last use, before this
    request (Mattson et al., Evaluation Techniques for Storage Hierarchies, 1970). A request uses its last block first,
    as engines free them, so that a block never outlives the one it continues and hits are leading runs.
    """
    if not len(blocks.names):
        return ()
    distances, sizes, total = _distances(blocks)
    order = np.argsort(distances)
    reached, gained = distances[order], np.cumsum(sizes[order])
    num_distinct = int((distances == _NEVER).sum())
    block_tokens = int(blocks.sizes.max())
    capacities = [SMALLEST_BLOCKS << i for i in range(40) if SMALLEST_BLOCKS << i < num_distinct] + [num_distinct]
    found = []
    for capacity in capacities:
        num_hits = int(np.searchsorted(reached, capacity, side="right"))
        hit = int(gained[num_hits - 1]) if num_hits else 0
        found.append(CacheSize(capacity=capacity * block_tokens, hit_ratio=hit / total))
    return tuple(found)


_NEVER = np.iinfo(np.int64).max


def _distances(blocks: PrefixBlocks) -> tuple[Ints, Ints, int]:
    """For each access: distinct blocks since the last use, this one counted; tokens; and the tokens of all prompts."""
    offsets = blocks.offsets
    counts = np.diff(offsets)
    starts = np.repeat(offsets[:-1], counts)  # of each access's request
    backwards = starts + np.repeat(offsets[1:], counts) - 1 - np.arange(int(offsets[-1]))
    names, sizes = blocks.names[backwards], blocks.sizes[backwards]
    previous = _previous_use(names)
    again = np.flatnonzero(previous >= 0)
    distances = np.full(len(names), _NEVER)
    # distinct blocks in (previous, start) are those whose own last use is not in it
    first_uses = count_smaller(previous, starts[again], previous[again] + 1) - (previous[again] + 1)
    distances[again] = first_uses + 1
    return distances, sizes, int(blocks.lengths.sum())


def _previous_use(names: Ints) -> Ints:
    """Place of the last access of the same name before each access; -1: none."""
    order = np.argsort(names, kind="stable")
    same = names[order[1:]] == names[order[:-1]]
    previous = np.full(len(names), -1)
    previous[order[1:][same]] = order[:-1][same]
    return previous


def count_smaller(values: Ints, ends: Ints, bounds: Ints) -> Ints:
    """For each query, how many of `values[:end]` are < bound; by a wavelet matrix, one bit of all values at a time.

    Args:
        values: >= -1, below their number.
    """
    bits = max(1, int(len(values) + 1).bit_length())
    left = values + 1  # from 0 on
    limit = np.minimum(bounds + 1, (1 << bits) - 1)
    low, high = np.zeros(len(ends), np.int64), ends.astype(np.int64)
    found = np.zeros(len(ends), np.int64)
    for bit in range(bits - 1, -1, -1):
        is_one = ((left >> bit) & 1).astype(bool)
        zeros = np.concatenate([[0], np.cumsum(~is_one)])
        goes_up = ((limit >> bit) & 1).astype(bool)
        zero_low, zero_high = zeros[low], zeros[high]
        found += np.where(goes_up, zero_high - zero_low, 0)
        low = np.where(goes_up, zeros[-1] + low - zero_low, zero_low)
        high = np.where(goes_up, zeros[-1] + high - zero_high, zero_high)
        left = np.concatenate([left[~is_one], left[is_one]])
    return found
