"""The quality loss of every quality class: known where one of its configs was measured, predicted elsewhere.

Does not know latency or cost: quality depends only on what changes the numbers a model computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from optimizer.slo import Slo, evaluate
from optimizer.suggest.acquisition import LogNormal
from optimizer.suggest.gaussian_process import GaussianProcess, Prior
from optimizer.suggest.kernels import Floats, similarities
from optimizer.suggest.lessons import SMALLEST_LOSS
from optimizer.suggest.pool import CandidatePool
from optimizer.suggest.suggester import Observation

TYPICAL_LOSS = 0.006  # of a class nothing is known of
KNOWN = 1e-6  # deviation of what was measured
_PRIOR = Prior(constant=0.5, parameter=1.2, pairs=0.5, noise=0.1)


class QualityPrediction(NamedTuple):
    """Of each candidate in the pool."""

    loss: LogNormal  # of 1 - quality
    feasible: Floats  # probability that the class meets every SLO on quality


class QualityModel:
    """Works on one representative per class: the first candidate of the pool that has it."""

    def __init__(self, pool: CandidatePool, tables: list[Floats], slos: tuple[Slo, ...]) -> None:
        self._classes, first, self._class_of = np.unique(
            np.array(pool.quality_classes), return_index=True, return_inverse=True
        )
        codes = pool.codes[first]
        self._similarities = similarities(tables, codes, codes)
        self._slos = tuple(slo for slo in slos if slo.measure.source == "quality")

    def predict(self, history: Sequence[Observation]) -> QualityPrediction:
        scores = {o.trial.config.quality_class(): o.trial.quality for o in history if o.trial.quality}
        known = np.array([str(name) in scores for name in self._classes])
        loss = np.array([1 - scores[str(n)].quality.value if str(n) in scores else np.nan for n in self._classes])
        mean, deviation = self._losses(np.log(np.maximum(loss, SMALLEST_LOSS)), known)
        feasible = self._chance(mean, deviation)
        for i in np.flatnonzero(known):
            score = scores[str(self._classes[i])]
            feasible[i] = float(all(evaluate(slo, {}, {}, score, None).violation <= 0 for slo in self._slos))
        of = self._class_of
        return QualityPrediction(LogNormal(mean[of], deviation[of]), feasible[of])

    def _losses(self, logs: Floats, known: np.typing.NDArray[np.bool_]) -> tuple[Floats, Floats]:
        centre = np.log(TYPICAL_LOSS)
        own = np.einsum("cii->ci", self._similarities)
        amplitudes = np.exp(_PRIOR.logs(len(own) - 2))
        mean = np.full(len(known), centre)
        deviation = np.full(len(known), float(np.sqrt(amplitudes[:-1] ** 2 @ own).max()))
        if known.any():
            observed = self._similarities[:, known][:, :, known]
            process = GaussianProcess.given(amplitudes, observed, logs[known] - centre)
            predicted, deviation = process.predict(self._similarities[:, :, known], own)
            mean = predicted + centre
        return np.where(known, logs, mean), np.where(known, KNOWN, deviation)

    def _chance(self, mean: Floats, deviation: Floats) -> Floats:
        """Only floors on quality itself are predicted; other limits (KL) are met or not once measured."""
        chance = np.ones(len(mean))
        for slo in self._slos:
            if slo.metric == "quality" and not slo.is_upper:
                room = np.log(max(1 - slo.limit, SMALLEST_LOSS))
                chance *= ndtr((room - mean) / deviation)
        return chance
