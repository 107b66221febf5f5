"""Which tree of guesses to verify: the one expected to keep the most tokens, from how often guesses are right.

Does not know tokens or heads. Source: Cai et al. 2024, section 2.3.3: the chance that a token of the tree is kept is the
product along its path of how often such guesses were right, and the tree grows by the most likely token still left out.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.bundled.token_tree import Parents

MAX_RANK = 8  # guesses of a place, best first, that a tree may hold
_PRIOR_TRIES = 32.0
_REVIEW_EVERY = 64  # tries of the first place between two looks at the trees
_KEEP = 0.5  # of the counts at every look, so that they follow the traffic

Shares = npt.NDArray[np.float64]


class DraftTree(NamedTuple):
    """Node i continues node `parents[i]` with guess number `ranks[i]` of the head `depths[i]`."""

    parents: Parents
    depths: tuple[int, ...]
    ranks: tuple[int, ...]


def choose_tree(right: Shares, num_nodes: int) -> DraftTree:
    """The tree of the highest expected number of kept tokens.

    Args:
        right: [D, K] how often guess k for place d is right where all before it were.
        num_nodes: most nodes; fewer where there are not so many.
    """
    order = np.argsort(-right, axis=1, kind="stable")  # of each place's guesses, the one right most often first
    shares = np.take_along_axis(right, order, axis=1)
    parents: list[int] = []
    depths: list[int] = []
    ranks: list[int] = []
    candidates = [(-shares[0, 0], 0, -1, 0, 0, 1.0)]  # -chance, number, parent, depth, place in order, parent's chance
    number = 0
    while candidates and len(parents) < num_nodes:
        negative, _, parent, depth, next_best, before = heapq.heappop(candidates)
        node = len(parents)
        parents.append(parent)
        depths.append(depth)
        ranks.append(int(order[depth, next_best]))
        number += 2
        if next_best + 1 < shares.shape[1]:
            chance = before * shares[depth, next_best + 1]
            heapq.heappush(candidates, (-chance, number, parent, depth, next_best + 1, before))
        if depth + 1 < len(shares):
            heapq.heappush(candidates, (negative * shares[depth + 1, 0], number + 1, node, depth + 1, 0, -negative))
    return DraftTree(tuple(parents), tuple(depths), tuple(ranks))


def default_shares(num_heads: int) -> Shares:
    """What is believed of heads before any was seen, [num_heads, MAX_RANK]: 0.6 for the best guess of the first place,
    a tenth less a place further on, and of what is left to a place's guesses 0.4 for each in turn."""
    first = 0.6 * 0.9 ** np.arange(num_heads)
    left = (1 - first)[:, None] * 0.6 ** np.arange(MAX_RANK - 1)
    return np.concatenate((first[:, None], 0.4 * left), axis=1)


class GuessRecord:
    """How often each place's guesses were right of late, and the trees that follow from it."""

    def __init__(self, num_heads: int, num_ranks: int) -> None:
        self._num_heads = num_heads
        self._prior = default_shares(num_heads)[:, :num_ranks]
        self.reset()

    def reset(self) -> None:
        """Forget what was seen."""
        self._hits = _PRIOR_TRIES * self._prior
        self._tries = np.full(self._num_heads, _PRIOR_TRIES)
        self._until_review = _REVIEW_EVERY
        self._trees: dict[tuple[int, int], DraftTree] = {}

    def add(self, guesses: list[list[int]], truth: list[int]) -> None:
        """Note guesses [D][K] of consecutive places and what came there, as far as it did.

        Later places are only known where those before them were kept, which is when their guesses count.
        """
        for place, (ranked, token_id) in enumerate(zip(guesses, truth, strict=False)):
            self._tries[place] += 1
            if token_id in ranked:
                self._hits[place, ranked.index(token_id)] += 1
        self._until_review -= 1
        if not self._until_review:
            self._review()

    def tree(self, num_nodes: int, max_depth: int) -> DraftTree:
        """The best tree of so many nodes."""
        key = (num_nodes, max_depth)
        if key not in self._trees:
            self._trees[key] = choose_tree((self._hits / self._tries[:, None])[:max_depth], num_nodes)
        return self._trees[key]

    def _review(self) -> None:
        self._trees.clear()
        self._hits *= _KEEP
        self._tries *= _KEEP
        self._until_review = _REVIEW_EVERY
