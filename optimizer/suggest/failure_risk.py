"""How likely a candidate cannot run, judged by the company it keeps among failures.

Does not know reasons: a value, or a pair of values, is suspect in the share of its trials that failed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from optimizer.suggest.kernels import Floats
from optimizer.suggest.pool import Codes

SURPRISE = 0.02  # failures expected of values never tried


def failure_risk(codes: Codes, tried: Codes, failed: npt.NDArray[np.bool_]) -> Floats:
    """(candidates,): the largest (failures + SURPRISE) / (trials + 1) over the pairs of values of a candidate.

    Args:
        codes: (candidates, parameters).
        tried: (trials, parameters); `failed` says which of them did.
    """
    if not failed.any():
        return np.full(len(codes), SURPRISE)
    sizes = np.maximum(codes.max(axis=0), tried.max(axis=0)) + 1
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    marks = np.zeros((len(tried), int(sizes.sum())))
    np.put_along_axis(marks, tried + offsets, 1.0, axis=1)
    trials = marks.T @ marks
    failures = marks[failed].T @ marks[failed]
    suspicion = (failures + SURPRISE) / (trials + 1)
    at = codes + offsets
    risk = np.zeros(len(codes))
    for g in range(codes.shape[1]):
        for h in range(g, codes.shape[1]):
            np.maximum(risk, suspicion[at[:, g], at[:, h]], out=risk)
    return risk
