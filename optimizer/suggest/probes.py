"""The first questions of a study: one technique at a time, the ones that usually pay most first.

Does not know results; the order is field experience, not measured here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from optimizer.suggest.pool import CandidatePool
from search_spaces.parameter import Value

HALF = "half the default's"
# What a value must set to be a probe, by expected payoff.
PAYOFF: tuple[tuple[str, Value], ...] = (
    ("speculative_config.method", "draft_model"),
    ("speculative_config.method", "ngram"),
    ("speculative_config.method", "suffix"),
    ("max_num_seqs", HALF),
    ("quantization.weights", "int8"),
    ("dtype", "float32"),
)


def probes(pool: CandidatePool) -> list[tuple[str, Value]]:
    """(parameter, value) pairs of the space that turn a technique on, in order of payoff, the default's left out."""
    return [found for field, wanted in PAYOFF for found in _matching(pool, field, wanted)]


def _matching(pool: CandidatePool, field: str, wanted: Value) -> Iterator[tuple[str, Value]]:
    default = pool.space.default_assignment
    for name, parameter in pool.space.parameters.items():
        values = [value for value in parameter.values() if default.get(name) != value]
        if wanted == HALF and parameter.options is None and parameter.fields(name) == (field,):
            yield from _nearest_half(name, values, default.get(name))
        else:
            yield from ((name, v) for v in values if parameter.settings(name, v).get(field, HALF) == wanted != HALF)


def _nearest_half(name: str, values: list[Value], default: Value) -> Iterator[tuple[str, Value]]:
    smaller = [v for v in values if isinstance(v, int) and isinstance(default, int) and 0 < v < default]
    if smaller and isinstance(default, int):
        half = math.log(default / 2)
        yield name, min(smaller, key=lambda value: abs(math.log(value) - half))
