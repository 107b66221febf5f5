"""Which tree of guesses to verify: the one that is expected to keep the most tokens, of those guesses that pay.

Does not know tokens or heads. The chance that a token of the tree is kept is the product along its path of the chances
that its guesses are right, and the tree grows by the most likely token still left out (Cai et al. 2024, section 2.3.3).
A guess's chance is what its head gives it, so that each step has its own tree, corrected by how often such guesses were
right of late.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence as Seq
from typing import NamedTuple

from engine.bundled.token_tree import Parents

MAX_RANK = 8  # guesses of a place, best first, that a tree may hold
_LEAST_SHARE = 0.02  # of the best guess's probability, below which a guess is not looked at
_BINS = 16  # of a head's probability, each corrected on its own
_PRIOR = 4.0  # right guesses' worth of trust in the heads
_HALVE_EVERY = 256  # steps between two halvings of what was counted, so that it follows the traffic

Shares = Seq[Seq[float]]


class DraftTree(NamedTuple):
    """Node i continues node `parents[i]` with guess number `ranks[i]` of the head `depths[i]`."""

    parents: Parents
    depths: tuple[int, ...]
    ranks: tuple[int, ...]


def choose_tree(chances: Shares, num_nodes: int, *, min_chance: float = 0.0) -> DraftTree:
    """The tree of the highest expected number of kept tokens, depth first: its likeliest path comes before all others.

    Args:
        chances: [D][K] that guess k for place d is right where all before it are.
        num_nodes: most nodes; fewer where there are not so many.
        min_chance: of being kept, below which a node is left out; the first one never is.
    """
    order = [sorted(range(len(own)), key=own.__getitem__, reverse=True) for own in chances]
    parents: list[int] = []
    branches: list[tuple[int, ...]] = []  # of each node the places in the order that lead to it
    # -chance, a number that no two share, parent, branch, the parent's chance
    candidates: list[tuple[float, int, int, tuple[int, ...], float]] = [(-chances[0][order[0][0]], 0, -1, (0,), 1.0)]
    number = 0
    while candidates and len(parents) < num_nodes:
        negative, _, parent, branch, before = heapq.heappop(candidates)
        if -negative < min_chance and parents:
            break
        depth, place = len(branch), branch[-1]
        own, best = chances[depth - 1], order[depth - 1]
        node = len(parents)
        parents.append(parent)
        branches.append(branch)
        number += 2
        if place + 1 < len(best):
            chance = before * own[best[place + 1]]
            heapq.heappush(candidates, (-chance, number, parent, (*branch[:-1], place + 1), before))
        if depth < len(chances):
            chance = negative * chances[depth][order[depth][0]]
            heapq.heappush(candidates, (chance, number + 1, node, (*branch, 0), -negative))
    return _depth_first(parents, branches, order)


def _depth_first(parents: list[int], branches: list[tuple[int, ...]], order: list[list[int]]) -> DraftTree:
    nodes = sorted(range(len(parents)), key=branches.__getitem__)
    place_of = {node: place for place, node in enumerate(nodes)} | {-1: -1}
    return DraftTree(
        tuple(place_of[parents[node]] for node in nodes),
        tuple(len(branches[node]) - 1 for node in nodes),
        tuple(order[len(branches[node]) - 1][branches[node][-1]] for node in nodes),
    )


class GuessRecord:
    """How often guesses were right of late, by head and by the probability that it gave them."""

    def __init__(self, num_heads: int) -> None:
        self._num_heads = num_heads
        self.reset()

    def reset(self) -> None:
        """Trust the heads."""
        self._right = [[_PRIOR] * _BINS for _ in range(self._num_heads)]
        self._expected = [[_PRIOR] * _BINS for _ in range(self._num_heads)]
        self._until_halved = _HALVE_EVERY

    def chances(self, probabilities: Shares) -> list[list[float]]:
        """That guesses are right, of the heads' probabilities [D][K], falling: p * right / expected, at most 1.

        Guesses that are hopeless beside the best one are left out.
        """
        found = []
        for head, own in enumerate(probabilities):
            right, expected = self._right[head], self._expected[head]
            chances = []
            for p in own:
                if p < _LEAST_SHARE * own[0]:
                    break
                place = _bin(p)
                chances.append(min(1.0, p * right[place] / expected[place]))
            found.append(chances)
        return found

    def add(self, guesses: Seq[Seq[int]], probabilities: Shares, truth: Seq[int]) -> None:
        """Note guesses [D][K] of consecutive places and what came there, as far as it did.

        Later places are only known where those before them were kept, which is when their guesses count.
        """
        for head, (ranked, own, token_id) in enumerate(zip(guesses, probabilities, truth, strict=False)):
            right, expected = self._right[head], self._expected[head]
            for guess, p in zip(ranked, own, strict=True):
                if p < _LEAST_SHARE * own[0]:
                    break
                expected[_bin(p)] += p
                right[_bin(p)] += guess == token_id
        self._until_halved -= 1
        if not self._until_halved:
            self._halve()

    def _halve(self) -> None:
        for counts in (*self._right, *self._expected):
            counts[:] = [count / 2 for count in counts]
        self._until_halved = _HALVE_EVERY


def _bin(probability: float) -> int:
    return min(_BINS - 1, int(probability * _BINS))
