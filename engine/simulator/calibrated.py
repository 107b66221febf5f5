"""`CalibratedOracle`: step times fitted to the steps that an engine has logged.

Does not know hardware or configs. A step lasts from its beginning to that of the next one, so that what an engine does
between steps is in it. Its seconds are a sum of costs that are never negative: of the model's pass (base, tokens,
cheaper in large steps, the context that is read, prompts' attention), which trials of one number format share, of
drafting, which trials of one drafter share, and of arrivals. Fitted to relative errors, so that short steps count as
much as long ones (reweighted non-negative least squares).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky
from scipy.optimize import nnls

from engine.bundled.step_log import StepRecord
from engine.simulator.errors import SimulatorError
from engine.simulator.oracle import Provenance, Source
from engine.simulator.traffic import Floats, Ints

MIN_STEPS = 50
_MAX_STEPS = 40_000  # that are fitted, evenly chosen
_FOLDS, _BLOCKS = 5, 50  # every fifth of fifty spans of a trial is held out together
_ROUNDS = 4  # of reweighting
_RIDGE = 1e-10  # for costs that no step shows
_LONG = 10.0  # times what the fit says: a hiccup of the machine, no property of the step
_KNEES = (4, 16, 64, 256)  # tokens up to which a further token has a price of its own
_COLUMNS = (
    "num_prefill_seqs",
    "num_prefill_tokens",
    "num_prefill_context_tokens",
    "num_decode_seqs",
    "num_decode_context_tokens",
    "num_draft_tokens",
)
_DECODING = 3


@dataclass(frozen=True, kw_only=True)
class MeasuredSteps:
    """One trial's step log.

    Args:
        name: what was measured, for people.
        number_format: what the costs of the model's pass depend on.
        drafter: what the costs of drafting depend on; empty: nobody drafts.
    """

    records: Sequence[StepRecord]
    name: str
    number_format: str = ""
    drafter: str = ""


class CalibratedOracle:
    """Costs, the error they had on steps that were held out, and how far the steps went that they were fitted to."""

    def __init__(
        self, passing: Floats, drafting: Floats, arrival_s: float, seen: Floats, provenance: Provenance
    ) -> None:
        self.provenance = provenance
        self.max_decode_seqs, self.max_tokens = (int(most) for most in seen)
        (base, token, *knees, prompts, prompt, decoding, decoded, context, pair) = passing.tolist()
        (drafts, drafter, draft, draft_pass, drafted_prompt, drafted_token) = drafting.tolist()
        self._base, self._token, self._knees = base, token, tuple(zip(_KNEES, knees, strict=True))
        self._prompts, self._prompt = prompts, prompt + drafted_prompt + arrival_s
        self._context, self._pair, self._prompt_token = context, pair, drafted_token
        self._decoding, self._decode_context = decoding + drafter, decoded
        self._drafting, self._draft, self._pass = drafts, draft, draft_pass

    def step_s(
        self,
        prefill_seqs: int,
        prefill_tokens: int,
        prefill_context: int,
        decode_seqs: int,
        decode_context: float,
        draft_tokens: float,
    ) -> float:
        """Seconds until the next step can begin."""
        total = prefill_tokens + decode_seqs + draft_tokens
        seconds: float = self._base + total * self._token
        seconds += decode_seqs * self._decoding + decode_context * self._decode_context
        for knee, cost in self._knees:
            seconds += cost * (total if total < knee else knee)
        if prefill_seqs:
            pairs = prefill_tokens * (prefill_context + prefill_tokens / 2) / prefill_seqs
            seconds += self._prompts + prefill_seqs * self._prompt + prefill_tokens * self._prompt_token
            seconds += prefill_context * self._context + pairs * self._pair
        if decode_seqs:
            seconds += self._drafting + draft_tokens * self._draft + draft_tokens / decode_seqs * self._pass
        return seconds

    def outside(self, *, max_num_seqs: int, max_num_batched_tokens: int) -> str:
        """What a scheduler may ask that no step showed, for people; empty when nothing."""
        beyond = []
        if max_num_seqs > self.max_decode_seqs:
            beyond.append(f"more than {self.max_decode_seqs} decoding requests")
        if max_num_batched_tokens > self.max_tokens:
            beyond.append(f"more than {self.max_tokens} tokens")
        return f"steps of {' or '.join(beyond)} were not seen: extrapolated" if beyond else ""


class _Rows(NamedTuple):
    """All trials' steps below each other."""

    steps: Floats  # [N, 6], as `_COLUMNS`
    arrivals: Floats  # [N]: requests that came while the step ran
    seconds: Floats  # [N]
    formats: Ints  # [N]: number of the trial's format
    drafters: Ints  # [N]: -1 for none
    folds: Ints

    def only(self, kept: npt.NDArray[np.bool_]) -> _Rows:
        return _Rows(
            steps=self.steps[kept],
            arrivals=self.arrivals[kept],
            seconds=self.seconds[kept],
            formats=self.formats[kept],
            drafters=self.drafters[kept],
            folds=self.folds[kept],
        )


class Calibrator:
    """A joint fit to several trials; `oracle` puts a format's pass and a drafter's drafting together.

    Raises:
        SimulatorError: too few steps of a trial.
    """

    def __init__(self, trials: Sequence[MeasuredSteps]) -> None:
        self._trials = [(trial.name, trial.number_format, trial.drafter) for trial in trials]
        self._formats = list(dict.fromkeys(trial.number_format for trial in trials))
        self._drafters = list(dict.fromkeys(trial.drafter for trial in trials if trial.drafter))
        rows = _rows(trials, self._formats, self._drafters)
        features = self._features(rows)
        expected = features @ _fit(features, rows.seconds)
        self._kept = rows.seconds < _LONG * np.maximum(expected, np.median(rows.seconds) / _LONG)
        self._left_out_s = float(rows.seconds[~self._kept].sum() / rows.seconds.sum())
        rows = rows.only(self._kept)
        features = features[self._kept]
        self._rows, self._costs = rows, _fit(features, rows.seconds)
        self._held_out = np.empty(len(rows.seconds))
        for fold in range(_FOLDS):
            inside = rows.folds == fold
            self._held_out[inside] = features[inside] @ _fit(features[~inside], rows.seconds[~inside])

    @property
    def number_formats(self) -> tuple[str, ...]:
        return tuple(self._formats)

    @property
    def drafters(self) -> tuple[str, ...]:
        return tuple(self._drafters)

    def oracle(self, number_format: str = "", drafter: str = "") -> CalibratedOracle:
        """Step times of a format and a drafter, both of which must have been measured, not necessarily together."""
        place = self._formats.index(number_format) * _NUM_PASS
        first_draft = len(self._formats) * _NUM_PASS
        drafting = np.zeros(_NUM_DRAFT)
        mine = self._rows.formats == self._formats.index(number_format)
        if drafter:
            number = self._drafters.index(drafter)
            drafting = self._costs[first_draft + number * _NUM_DRAFT :][:_NUM_DRAFT]
            together = mine & (self._rows.drafters == number)
            mine = together if together.any() else mine | (self._rows.drafters == number)
        else:
            alone = mine & (self._rows.drafters < 0)
            mine = alone if alone.any() else mine
        steps = self._rows.steps[mine]
        seen = np.array([steps[:, _DECODING].max(), steps[:, [1, 3, 5]].sum(axis=1).max()])
        costs = self._costs[place : place + _NUM_PASS]
        names = [name for name, format, own in self._trials if format == number_format or (drafter and own == drafter)]
        provenance = self._provenance(names, mine, seen)
        return CalibratedOracle(costs, drafting, float(self._costs[-1]), seen, provenance)

    def _provenance(self, names: Sequence[str], mine: npt.NDArray[np.bool_], seen: Floats) -> Provenance:
        predicted, seconds = self._held_out[mine], self._rows.seconds[mine]
        gaps = [f"steps of more than {int(seen[0])} decoding requests were not seen"]
        if num := int((~self._kept).sum()):
            share = f"{self._left_out_s:.1%} of their time"
            gaps.append(f"{num} of {len(self._kept)} steps left out, {share}: longer than {_LONG:g} times the fit")
        return Provenance(
            source=Source.CALIBRATED,
            detail=f"{len(seconds)} steps of {', '.join(names)}",
            median_error=float(np.median(np.abs(predicted / seconds - 1))),
            total_error=float(predicted.sum() / seconds.sum() - 1),
            num_held_out=len(seconds),
            gaps=tuple(gaps),
        )

    def _features(self, rows: _Rows) -> Floats:
        """[N, formats * _NUM_PASS + drafters * _NUM_DRAFT + 1]."""
        passing, drafting = _pass_features(rows.steps), _draft_features(rows.steps)
        blocks = [passing * (rows.formats == number)[:, None] for number in range(len(self._formats))]
        blocks += [drafting * (rows.drafters == number)[:, None] for number in range(len(self._drafters))]
        return np.column_stack([*blocks, rows.arrivals])


def calibrate(records: Sequence[StepRecord], *, name: str) -> CalibratedOracle:
    """Fit to one trial's steps.

    Raises:
        SimulatorError: too few steps.
    """
    drafter = "drafts" if any(record.num_draft_tokens for record in records) else ""
    return Calibrator([MeasuredSteps(records=records, name=name, drafter=drafter)]).oracle(drafter=drafter)


def _pass_features(steps: Floats) -> Floats:
    seqs, tokens, context, decoding, decode_context, drafts = steps.T
    total = tokens + decoding + drafts
    each = tokens / np.maximum(seqs, 1)
    knees = [np.minimum(total, knee) for knee in _KNEES]
    pairs = tokens * (context / np.maximum(seqs, 1) + each / 2)
    ones = np.ones(len(steps))
    return np.column_stack([ones, total, *knees, seqs > 0, seqs, decoding, decode_context, context, pairs])


def _draft_features(steps: Floats) -> Floats:
    seqs, tokens, _, decoding, _, drafts = steps.T
    return np.column_stack([decoding > 0, decoding, drafts, drafts / np.maximum(decoding, 1), seqs, tokens])


_NUM_PASS, _NUM_DRAFT = (features(np.zeros((1, 6))).shape[1] for features in (_pass_features, _draft_features))


def _rows(trials: Sequence[MeasuredSteps], formats: Sequence[str], drafters: Sequence[str]) -> _Rows:
    every = max(1, sum(len(trial.records) for trial in trials) // _MAX_STEPS)
    parts = []
    for trial in trials:
        table = np.array(trial.records, np.float64)
        names = StepRecord._fields
        columns = {name: table[:, names.index(name)] if len(table) else np.empty(0) for name in names}
        whole = np.flatnonzero(~np.isnan(columns["gap_s"]))
        if len(whole) < MIN_STEPS:
            raise SimulatorError(
                f"{trial.name}: {len(whole)} logged steps with another step after them are too few to fit step "
                f"times, {MIN_STEPS} are needed. Measure longer"
            )
        arrivals = np.append(columns["num_added_seqs"][1:], 0.0)  # noted by the step after
        count = len(whole)
        parts.append(
            _Rows(
                steps=np.column_stack([columns[name][whole] for name in _COLUMNS])[::every],
                arrivals=arrivals[whole][::every],
                seconds=(columns["duration_s"] + columns["gap_s"])[whole][::every],
                formats=np.full(count, formats.index(trial.number_format))[::every],
                drafters=np.full(count, drafters.index(trial.drafter) if trial.drafter else -1)[::every],
                folds=(np.arange(count) * _BLOCKS // count % _FOLDS)[::every],
            )
        )
    return _Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _fit(features: Floats, seconds: Floats) -> Floats:
    """Costs that minimise Σ ((predicted - seconds) / predicted)², the divisor being the fit before.

    Dividing by the measured seconds instead would favour the short ones among equal steps, and totals
    would come out low.
    """
    guess = np.full(len(seconds), seconds.mean())
    for _ in range(_ROUNDS):
        rows = features / guess[:, None]
        scale = np.maximum(np.abs(rows).max(axis=0), 1e-30)  # of the features, for the solver's sake
        rows = np.column_stack([rows / scale, seconds / guess])
        products = rows.T @ rows
        products.flat[:: len(products) + 1] += _RIDGE * len(rows)
        small = cholesky(products)  # its last column is the target in the basis of the others
        costs: Floats = nnls(small[:-1, :-1], small[:-1, -1])[0] / scale
        guess = np.maximum(features @ costs, 1e-6)
    return costs
