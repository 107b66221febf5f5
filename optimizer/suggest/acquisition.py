"""What measuring a candidate is worth: expected hypervolume improvement and expected improvement, in closed form.

Does not know how predictions are made. A prediction is the mean and deviation of a logarithm, so values are lognormal.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from optimizer.pareto import StairGrid
from optimizer.suggest.kernels import Floats


class LogNormal(NamedTuple):
    """exp(Normal(mean, deviation)) of each candidate, independent of its other axes."""

    mean: Floats
    deviation: Floats


def expected_below(prediction: LogNormal, edges: Floats) -> Floats:
    """(m, edges): E[(edge - value)+], the Black-Scholes put: edge Φ(z) - E[value] Φ(z - σ)."""
    mean, deviation = prediction.mean[:, None], prediction.deviation[:, None]
    z = (np.log(edges) - mean) / deviation
    expected = np.exp(mean + deviation**2 / 2)
    return np.asarray(np.maximum(edges * ndtr(z) - expected * ndtr(z - deviation), 0.0))


def expected_hypervolume_improvement(
    predictions: tuple[LogNormal, LogNormal, LogNormal], front: Floats, reference: Floats
) -> Floats:
    """(m,): exact expectation of the volume added to the front's, for independent axes; less is better.

    Sums over the cells of the front's grid the expected share of the cell a candidate would dominate.

    Args:
        front: (n, 3) positive values; rows not inside the reference are ignored.
    """
    inside = front[(front < reference).all(axis=1)] if len(front) else np.empty((0, 3))
    grid = StairGrid.of(inside, reference)
    x, y, z = (expected_below(p, edges) for p, edges in zip(predictions, (grid.x, grid.y, grid.z), strict=True))
    widths = np.diff(x, axis=1, prepend=0.0)
    heights = np.diff(y, axis=1, prepend=0.0)
    return np.asarray(np.einsum("mi,mj,mij->m", widths, heights, z[:, grid.lowest], optimize=True))


def expected_improvement(prediction: LogNormal, best: float) -> Floats:
    """(m,): expected decrease of the logarithm below log(best): (b - μ) Φ(z) + σ φ(z)."""
    gap = np.log(best) - prediction.mean
    z = gap / prediction.deviation
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    return np.asarray(np.maximum(gap * ndtr(z) + prediction.deviation * density, 0.0))
