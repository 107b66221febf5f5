"""`CalibratedOracle`: step times fitted to the steps that an engine has logged.

Does not know hardware. Seconds are a sum of costs that are never negative: a base, tokens (cheaper in large steps), the
context that is read, prompts' attention, drafting. Fitted to relative errors, so that short steps count as much as long
ones (reweighted non-negative least squares).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls

from engine.bundled.step_log import StepRecord
from engine.simulator.errors import SimulatorError
from engine.simulator.oracle import Provenance, Source
from engine.simulator.traffic import Floats, Ints

MIN_STEPS = 50
_FOLDS = 5
_ROUNDS = 5  # of reweighting
_LONG = 20.0  # times the median duration: a hiccup of the machine, no property of the step
_DECODING = 3  # column of the decoding requests in a composition
_KNEES = (4, 16, 64, 256)  # tokens up to which a further token has a price of its own


def _features(steps: Floats) -> Floats:
    """Rows of compositions as costs' multipliers: (steps, 6) to (steps, features)."""
    seqs, tokens, context, decoding, decode_context, drafts = steps.T
    total = tokens + decoding + drafts
    each = tokens / np.maximum(seqs, 1)
    return np.column_stack(
        [
            np.ones(len(steps)),
            total,
            *(np.minimum(total, knee) for knee in _KNEES),
            seqs > 0,
            seqs,
            decoding,
            decode_context,
            context,
            tokens * (context / np.maximum(seqs, 1) + each / 2),
            drafts > 0,
            drafts,
        ]
    )


class CalibratedOracle:
    """Costs and the error they had on steps that were held out."""

    def __init__(self, costs: Floats, provenance: Provenance) -> None:
        self.provenance = provenance
        (base, token, *knees, prompts, prompt, decoding, decoded, context, pair, drafting, draft) = costs.tolist()
        self._base, self._token, self._knees = base, token, tuple(zip(_KNEES, knees, strict=True))
        self._prompts, self._prompt, self._context, self._pair = prompts, prompt, context, pair
        self._decoding, self._decode_context, self._drafting, self._draft = decoding, decoded, drafting, draft

    def step_s(
        self,
        prefill_seqs: int,
        prefill_tokens: int,
        prefill_context: int,
        decode_seqs: int,
        decode_context: float,
        draft_tokens: int,
    ) -> float:
        """Seconds."""
        total = prefill_tokens + decode_seqs + draft_tokens
        seconds: float = self._base + total * self._token
        seconds += decode_seqs * self._decoding + decode_context * self._decode_context
        for knee, cost in self._knees:
            seconds += cost * (total if total < knee else knee)
        if prefill_seqs:
            pairs = prefill_tokens * (prefill_context + prefill_tokens / 2) / prefill_seqs
            seconds += self._prompts + prefill_seqs * self._prompt
            seconds += prefill_context * self._context + pairs * self._pair
        if draft_tokens:
            seconds += self._drafting + draft_tokens * self._draft
        return seconds


def calibrate(records: Sequence[StepRecord], *, name: str) -> CalibratedOracle:
    """Fit to logged steps; the error is that of five folds, contiguous in time, each predicted from the others.

    Args:
        name: what was measured, for people.

    Raises:
        SimulatorError: too few steps.
    """
    if len(records) < MIN_STEPS:
        raise SimulatorError(
            f"{name}: {len(records)} logged steps are too few to fit step times, {MIN_STEPS} are needed. Measure longer"
        )
    steps, seconds = _columns(records)
    kept = seconds < _LONG * np.median(seconds)
    steps, seconds = steps[kept], seconds[kept]
    fold = np.arange(len(steps)) * _FOLDS // len(steps)
    predicted = np.empty(len(steps))
    for held_out in range(_FOLDS):
        costs = _fit(steps[fold != held_out], seconds[fold != held_out])
        predicted[fold == held_out] = _features(steps[fold == held_out]) @ costs
    left_out = len(kept) - int(kept.sum())
    gaps = [f"steps of more than {int(steps[:, _DECODING].max())} decoding requests were not seen: extrapolated"]
    if left_out:
        gaps.append(f"{left_out} of {len(kept)} steps left out: longer than {_LONG:g} times the median")
    return CalibratedOracle(
        _fit(steps, seconds),
        Provenance(
            source=Source.CALIBRATED,
            detail=f"{len(steps)} steps of {name}",
            median_error=float(np.median(np.abs(predicted / seconds - 1))),
            total_error=float(predicted.sum() / seconds.sum() - 1),
            num_held_out=len(steps),
            gaps=tuple(gaps),
        ),
    )


def _columns(records: Sequence[StepRecord]) -> tuple[Floats, Floats]:
    rows = np.array(records, np.float64)
    names = StepRecord._fields
    wanted: Ints = np.array(
        [
            names.index(name)
            for name in (
                "num_prefill_seqs",
                "num_prefill_tokens",
                "num_prefill_context_tokens",
                "num_decode_seqs",
                "num_decode_context_tokens",
                "num_draft_tokens",
            )
        ]
    )
    return rows[:, wanted], rows[:, names.index("duration_s")]


def _fit(steps: Floats, seconds: Floats) -> Floats:
    """Costs that minimise Σ ((predicted - seconds) / predicted)², the divisor being the fit before.

    Dividing by the measured seconds instead would favour the short ones among equal steps, and totals
    would come out low.
    """
    features = _features(steps)
    guess = np.full(len(steps), seconds.mean())
    for _ in range(_ROUNDS):
        rows = features / guess[:, None]
        scale = np.maximum(np.abs(rows).max(axis=0), 1e-30)  # of the features, for the solver's sake
        costs: Floats = nnls(rows / scale, seconds / guess)[0] / scale
        guess = np.maximum(features @ costs, 1e-9)
    return costs
