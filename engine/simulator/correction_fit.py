"""`fit_correction`: what kernel times leave out, from runs of which mean TTFT and mean TPOT were measured.

Does not know who measured them or on what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from engine.simulator.corrected import CorrectedOracle, Correction
from engine.simulator.oracle import StepTimeOracle
from engine.simulator.settings import SchedulerSettings
from engine.simulator.simulate import simulate
from engine.simulator.traffic import Floats, Traffic

UNCORRECTED = Correction()
_START = np.array([1.05, 24.0, 0.5, 15.0])  # scale, ms, ms, us: the scale of what GPUs were found to need
_FIRST_MOVES = np.array([0.1, 12.0, 0.25, 7.5])
_MAX_EVALUATIONS = 70


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredRun:
    """A replay on one replica, and the two means that it had in truth; the oracle is uncorrected."""

    traffic: Traffic
    settings: SchedulerSettings
    oracle: StepTimeOracle
    mean_ttft_s: float
    mean_tpot_s: float

    def log_ratios(self, correction: Correction) -> tuple[float, float]:
        """log(predicted / measured) of both means."""
        outcome = simulate(self.traffic, self.settings, CorrectedOracle(self.oracle, correction))
        ttft = float(outcome.ttft_s.mean()) / self.mean_ttft_s
        return float(np.log(ttft)), float(np.log(np.nanmean(outcome.tpot_s) / self.mean_tpot_s))


def log_ratios(runs: Sequence[MeasuredRun], correction: Correction) -> Floats:
    """(runs, 2) log(predicted / measured) of mean TTFT and mean TPOT."""
    return np.array([run.log_ratios(correction) for run in runs])


def fit_correction(runs: Sequence[MeasuredRun], name: str) -> Correction:
    """Least mean |log ratio| of both means, each counted as 1 at most, by Nelder and Mead's simplex.

    Args:
        name: what the runs are, for people.
    """

    def correction(x: Floats) -> Correction:
        scale, floor_ms, step_ms, sequence_us = np.abs(x).tolist()
        return Correction(
            mixed_scale=scale,
            mixed_floor_s=floor_ms / 1e3,
            step_overhead_s=step_ms / 1e3,
            sequence_overhead_s=sequence_us / 1e6,
            fitted_on=name,
        )

    def loss(x: Floats) -> float:
        return float(np.minimum(1, np.abs(log_ratios(runs, correction(x)))).sum(axis=1).mean())

    simplex = np.vstack([_START, _START + np.diag(_FIRST_MOVES)])
    found = minimize(
        loss, _START, method="Nelder-Mead", options={"maxfev": _MAX_EVALUATIONS, "initial_simplex": simplex}
    )
    return correction(found.x)
