"""`CandidatePool`: the concrete configs a study chooses from, encoded for surrogates.

Does not know results. A space too large to list is represented by its default, the default's neighbours and a sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice

import numpy as np
import numpy.typing as npt

from engine.config import ConfigError, EngineConfig
from optimizer.candidate import make_config
from search_spaces.parameter import Assignment, Value
from search_spaces.space import SearchSpace

MAX_POOL = 20_000
Codes = npt.NDArray[np.int64]
Key = tuple[tuple[str, str], ...]


def assignment_key(assignment: Assignment) -> Key:
    """Equal exactly for equal assignments; keeps True and 1 apart."""
    return tuple(sorted((name, repr(value)) for name, value in assignment.items()))


class CandidatePool:
    """Valid candidates, no two of which mean the same config; the default is number 0. Listed on first use."""

    def __init__(self, space: SearchSpace, base: EngineConfig, *, seed: int, max_size: int = MAX_POOL) -> None:
        self.space = space
        self._base = base
        self._seed = seed
        self._max_size = max_size

    def __len__(self) -> int:
        return len(self.assignments)

    @property
    def assignments(self) -> tuple[dict[str, Value], ...]:
        return self._listed[0]

    @property
    def configs(self) -> tuple[EngineConfig, ...]:
        return self._listed[1]

    @cached_property
    def quality_classes(self) -> tuple[str, ...]:
        """Of each candidate, by `EngineConfig.quality_class`."""
        return tuple(config.quality_class() for config in self.configs)

    @cached_property
    def index(self) -> dict[Key, int]:
        return {assignment_key(assignment): i for i, assignment in enumerate(self.assignments)}

    def accepts(self, assignment: Assignment) -> bool:
        """Whether it means a valid config; of a space too large to list the pool holds only some."""
        if assignment_key(assignment) in self.index:
            return True
        if self.space.size() <= self._max_size:
            return False
        try:
            self.config(assignment)
        except ConfigError:
            return False
        return True

    def config(self, assignment: Assignment) -> EngineConfig:
        """Raises ConfigError when the assignment's fields do not make a config together."""
        return make_config(self._base, self.space, assignment)

    @cached_property
    def codes(self) -> Codes:
        """(candidates, parameters): 0 where a parameter does not apply, else 1 + the position of its value."""
        return self.encode(self.assignments)

    def encode(self, assignments: Sequence[Assignment]) -> Codes:
        positions = {
            name: {repr(value): i + 1 for i, value in enumerate(parameter.values())}
            for name, parameter in self.space.parameters.items()
        }
        rows = [[at[repr(a[name])] if name in a else 0 for name, at in positions.items()] for a in assignments]
        return np.array(rows, np.int64).reshape(len(assignments), len(positions))

    def completed(self, partial: Assignment) -> dict[str, Value]:
        """The partial assignment's values where they apply, defaults elsewhere."""
        assignment: dict[str, Value] = {}
        for name, parameter in self.space.parameters.items():
            if parameter.applies(assignment):
                assignment[name] = partial[name] if name in partial else parameter.default_value()
        return assignment

    @cached_property
    def _listed(self) -> tuple[tuple[dict[str, Value], ...], tuple[EngineConfig, ...]]:
        assignments, configs, seen = [], [], set()
        for assignment in self._candidates():
            try:
                config = self.config(assignment)
            except ConfigError:
                continue
            fingerprint = config.fingerprint()
            if fingerprint not in seen:
                seen.add(fingerprint)
                assignments.append(assignment)
                configs.append(config)
        return tuple(assignments), tuple(configs)

    def _candidates(self) -> Iterator[dict[str, Value]]:
        yield self.space.default_assignment
        if self.space.size() <= self._max_size:
            yield from self.space.enumerate()
        else:
            yield from self._neighbours()
            yield from islice(self._drawn(), self._max_size)

    def _neighbours(self) -> Iterator[dict[str, Value]]:
        """The default with one parameter changed."""
        default = self.space.default_assignment
        for name in default:
            for value in self.space.parameters[name].values():
                yield self.completed({**default, name: value})

    def _drawn(self) -> Iterator[dict[str, Value]]:
        rng = np.random.default_rng(self._seed)
        while True:
            yield draw(self.space, rng)


def draw(space: SearchSpace, rng: np.random.Generator) -> dict[str, Value]:
    """Every parameter that applies, uniformly."""
    assignment: dict[str, Value] = {}
    for name, parameter in space.parameters.items():
        if parameter.applies(assignment):
            values = parameter.values()
            assignment[name] = values[int(rng.integers(len(values)))]
    return assignment


def indices_of(pool: CandidatePool, assignments: Iterable[Assignment]) -> list[int]:
    """Positions in the pool of those that are in it."""
    return [pool.index[key] for a in assignments if (key := assignment_key(a)) in pool.index]
