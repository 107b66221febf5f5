"""How alike two values of one parameter are, as a table a surrogate looks up.

Does not know what a parameter does to an engine.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from optimizer.suggest.pool import Codes
from search_spaces.parameter import Parameter, Value
from search_spaces.space import SearchSpace

Floats = npt.NDArray[np.float64]

LENGTH_SCALE = 0.5  # of numbers, on the log scale from the smallest (0) to the largest (1)
SAME_STEM = 0.7  # of texts that agree up to their first underscore, as int4_g32 and int4_g128_asym


def similarity_tables(space: SearchSpace) -> list[Floats]:
    """One (1 + values, 1 + values) positive definite table per parameter; row 0 is "does not apply"."""
    return [_table(parameter) for parameter in space.parameters.values()]


def similarities(tables: list[Floats], a: Codes, b: Codes) -> Floats:
    """(1 + parameters + 1, len(a), len(b)): a constant, one slice per parameter, and all pairs of parameters."""
    found = np.ones((len(tables) + 2, len(a), len(b)))
    squares = np.zeros(found.shape[1:])
    for g, table in enumerate(tables):
        np.take(table[:, b[:, g]], a[:, g], axis=0, out=found[g + 1], mode="clip")  # rows are contiguous this way round
        squares += found[g + 1] ** 2
    num_pairs = max(1.0, len(tables) * (len(tables) - 1) / 2)
    found[-1] = (found[1:-1].sum(axis=0) ** 2 - squares) / (2 * num_pairs)
    return found


def _table(parameter: Parameter) -> Floats:
    values = parameter.values()
    table = np.eye(len(values) + 1)
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values) and min(numbers) > 0:
        table[1:, 1:] = _of_numbers(numbers)
    else:
        table[1:, 1:] = [[_of_names(one, other) for other in values] for one in values]
    return table


def _of_numbers(values: list[int | float]) -> Floats:
    position = np.log(np.array(values, np.float64))
    position = (position - position.min()) / (np.ptp(position) or 1.0)
    return np.asarray(np.exp(-((position[:, None] - position) ** 2) / (2 * LENGTH_SCALE**2)))


def _of_names(one: Value, other: Value) -> float:
    if type(one) is type(other) and one == other:
        return 1.0
    stems = [value.split("_")[0] if isinstance(value, str) and "_" in value else "" for value in (one, other)]
    return SAME_STEM if stems[0] and stems[0] == stems[1] else 0.0
