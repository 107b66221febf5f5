"""Trees of tokens as tuples of parents, in topological order; -1 is the token before the tree.

Does not know tokens, only who follows whom. A tree's tokens lie one after another; each sees its own path alone.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Parents = tuple[int, ...]


@lru_cache(maxsize=1024)
def depths(parents: Parents) -> tuple[int, ...]:
    """How many tokens of the tree come before each."""
    found: list[int] = []
    for parent in parents:
        found.append(0 if parent < 0 else found[parent] + 1)
    return tuple(found)


@lru_cache(maxsize=1024)
def paths(parents: Parents) -> Ints:
    """Of each token the tokens that lead to it and itself, the first one first, [n, deepest + 1]; -1 behind the end."""
    found = np.full((len(parents), 1 + max(depths(parents))), -1, np.int64)
    for node, (parent, depth) in enumerate(zip(parents, depths(parents), strict=True)):
        if depth:
            found[node, :depth] = found[parent, :depth]
        found[node, depth] = node
    return found


@lru_cache(maxsize=1024)
def path_lengths(parents: Parents) -> Ints:
    """Tokens of each path, [n]."""
    return np.array(depths(parents)) + 1
