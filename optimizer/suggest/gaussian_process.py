"""A Gaussian process over configs whose effects are sums: one per parameter, plus all pairs of parameters.

Does not know what is predicted, nor that inputs are configs: it is given similarity matrices. One parameter's effect,
seen once, carries over to every config that shares the value, which is what few measurements need.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from optimizer.suggest.kernels import Floats


@dataclass(frozen=True, kw_only=True)
class Prior:
    """Lognormal priors over standard deviations: of the constant, of one parameter, of all pairs, of the noise."""

    constant: float
    parameter: float
    pairs: float
    noise: float
    spread: float = 1.0  # standard deviation of each log amplitude; the noise's is half of it

    def logs(self, num_parameters: int) -> Floats:
        return np.log([self.constant, *[self.parameter] * num_parameters, self.pairs, self.noise])

    def spreads(self, num_parameters: int) -> Floats:
        return np.array([self.spread] * (num_parameters + 2) + [self.spread / 2])


@dataclass(frozen=True, kw_only=True)
class GaussianProcess:
    """k = Σ amplitude² x similarity + noise²; mean 0."""

    amplitudes: Floats  # (components + 1,), the last is the noise
    factor: Floats  # lower Cholesky factor of the observed covariance
    weights: Floats  # covariance⁻¹ y

    @classmethod
    def fit(cls, observed: Floats, y: Floats, prior: Prior, *, start: Floats | None = None) -> GaussianProcess:
        """Amplitudes at their maximum a posteriori.

        Args:
            observed: (components, n, n) similarities among the observations.
            y: (n,).
            start: log amplitudes to begin with instead of the prior's.
        """
        num_parameters = len(observed) - 2
        centre, spread = prior.logs(num_parameters), prior.spreads(num_parameters)
        matrices = np.concatenate([observed, np.eye(len(y))[None]])
        found = minimize(
            _negative_log_posterior,
            centre if start is None else start,
            args=(matrices, y, centre, spread),
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(centre - 3 * spread, centre + 3 * spread, strict=True)),
            options={"maxiter": 40},
        )
        return cls.given(np.exp(found.x), observed, y)

    @classmethod
    def given(cls, amplitudes: Floats, observed: Floats, y: Floats) -> GaussianProcess:
        """With these amplitudes."""
        covariance = _covariance(amplitudes, np.concatenate([observed, np.eye(len(y))[None]]))
        factor = cholesky(covariance, lower=True)
        return cls(amplitudes=amplitudes, factor=factor, weights=cho_solve((factor, True), y))

    def predict(self, cross: Floats, own: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation, without noise, of m candidates.

        Args:
            cross: (components, m, n) similarities to the observations.
            own: (components, m) similarity of each candidate to itself.
        """
        squares = self.amplitudes[:-1] ** 2
        covariance = np.tensordot(squares, cross, axes=1)
        explained = solve_triangular(self.factor, covariance.T, lower=True)
        variance = squares @ own - np.einsum("nm,nm->m", explained, explained)
        return covariance @ self.weights, np.sqrt(np.maximum(variance, 1e-12))


def _covariance(amplitudes: Floats, matrices: Floats) -> Floats:
    return np.asarray(np.tensordot(amplitudes**2, matrices, axes=1) + 1e-9 * np.eye(matrices.shape[1]))


def _negative_log_posterior(
    logs: Floats, matrices: Floats, y: Floats, centre: Floats, spread: Floats
) -> tuple[float, Floats]:
    """And its gradient: ½ tr((K⁻¹ - αα') dK) for each log amplitude (Rasmussen and Williams, equation 5.9)."""
    amplitudes = np.exp(logs)
    factor = cholesky(_covariance(amplitudes, matrices), lower=True)
    weights = cho_solve((factor, True), y)
    inverse = cho_solve((factor, True), np.eye(len(y)))
    deviation = (logs - centre) / spread
    value = 0.5 * y @ weights + np.log(np.diag(factor)).sum() + 0.5 * deviation @ deviation
    slope = np.einsum("ij,cij->c", inverse - np.outer(weights, weights), matrices) * amplitudes**2
    return float(value), slope + deviation / spread
