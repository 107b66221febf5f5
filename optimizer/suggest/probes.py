"""The first questions of a study: one technique at a time, the ones that usually pay most first.

Does not know results; the order is field experience, not measured here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from optimizer.suggest.pool import CandidatePool
from search_spaces.parameter import Value

# What a value must set to be a probe, by expected payoff.
PAYOFF: tuple[tuple[str, Value], ...] = (
    ("speculative_config.method", "draft_model"),
    ("speculative_config.method", "ngram"),
    ("quantization.weights", "int8"),
    ("dtype", "float32"),
)


def probes(pool: CandidatePool) -> list[tuple[str, Value]]:
    """(parameter, value) pairs of the space that turn a technique on, in order of payoff, the default's left out."""
    default = pool.space.default_assignment
    found = []
    for field, wanted in PAYOFF:
        for name, value in _values(pool):
            settings: Mapping[str, Value] = pool.space.parameters[name].settings(name, value)
            if field in settings and settings[field] == wanted and default.get(name) != value:
                found.append((name, value))
    return found


def _values(pool: CandidatePool) -> Iterator[tuple[str, Value]]:
    for name, parameter in pool.space.parameters.items():
        yield from ((name, value) for value in parameter.values())
