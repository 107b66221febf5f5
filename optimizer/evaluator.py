"""`Evaluator`: one candidate from config to `TrialResult`: check, find out, judge, write.

Does not choose candidates and does not compare them; who finds out is a `Measurer`.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

from engine.backend import EngineError, FailureKind
from engine.config import EngineConfig
from optimizer.client import Report, silent
from optimizer.errors import OptimizerError
from optimizer.findings import Findings, Measurer
from optimizer.objective import Objective
from optimizer.results import SloOutcome, TrialResult, TrialState
from optimizer.slo import Slo, evaluate
from optimizer.trial_folder import TrialFolder


class Evaluator:
    """Evaluates candidates of one study, one at a time."""

    def __init__(self, *, measurer: Measurer, study_dir: Path, objective: Objective, slos: tuple[Slo, ...]) -> None:
        self._measurer, self._study_dir, self._objective, self._slos = measurer, study_dir, objective, slos

    def prepare(self, default: EngineConfig, *, report: Report = silent) -> None:
        """Whatever must be there before the first candidate.

        Raises:
            EngineError: it cannot be made.
        """
        self._measurer.prepare(default, report=report)

    def evaluate(self, number: int, config: EngineConfig, *, origin: str, report: Report = silent) -> TrialResult:
        """Find out about one candidate and write `trials/NNNN/`; engine failures are results, never exceptions."""
        folder = TrialFolder(self._study_dir, number)
        started_at, start = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
        folder.begin(config)
        result = self._outcome(number, config, folder, report).model_copy(
            update={
                "provenance": self._measurer.provenance,
                "origin": origin,
                "started_at": started_at,
                "duration_s": round(time.monotonic() - start, 3),
                "directory": folder.relative,
            }
        )
        folder.finish(result)
        return result

    def _outcome(self, number: int, config: EngineConfig, folder: TrialFolder, report: Report) -> TrialResult:
        refusals = self._measurer.check(config)
        if refusals:
            reason = "; ".join(refusal.reason for refusal in refusals)
            kind = refusals[0].kind
            return TrialResult(number=number, config=config, state=TrialState.REFUSED, failure=kind, reason=reason)
        try:
            findings = self._measurer.find(config, folder, report)
        except EngineError as error:
            state = TrialState.REFUSED if error.kind is FailureKind.REFUSED else TrialState.FAILED
            return TrialResult(number=number, config=config, state=state, failure=error.kind, reason=str(error))
        if findings.stop_reason:
            return self._stopped(number, config, findings)
        trial = self._complete(number, config, findings)
        return trial if findings.void_reason else self._with_verdict(trial)

    def _stopped(self, number: int, config: EngineConfig, findings: Findings) -> TrialResult:
        return TrialResult(
            number=number,
            config=config,
            state=TrialState.STOPPED,
            reason=findings.stop_reason,
            quality=findings.quality,
            bounds=dict(findings.bounds),
            weights=findings.weights,
        )

    def _complete(self, number: int, config: EngineConfig, findings: Findings) -> TrialResult:
        return TrialResult(
            number=number,
            config=config,
            state=TrialState.COMPLETE,
            metrics=dict(findings.metrics),
            estimates=dict(findings.estimates),
            quality=findings.quality,
            cost=findings.cost,
            reason=findings.void_reason,
            basis=findings.basis,
            weights=findings.weights,
        )

    def _with_verdict(self, trial: TrialResult) -> TrialResult:
        """The SLOs' outcomes and the objective's value; what cannot be told is a reason."""
        missing = []
        try:
            outcomes = slo_outcomes(self._slos, trial)
        except OptimizerError as error:
            outcomes = ()
            missing.append(str(error))
        trial = trial.model_copy(update={"slos": outcomes})
        try:
            value = self._objective.value(trial, self._default(trial))
        except OptimizerError as error:
            value = None
            missing.append(str(error))
        reason = "; ".join(dict.fromkeys([*([trial.reason] if trial.reason else []), *missing]))
        return trial.model_copy(update={"objective": value, "reason": reason})

    def _default(self, trial: TrialResult) -> TrialResult | None:
        """Trial 0, which weighted objectives are relative to; it is relative to itself. None where it is void."""
        if trial.number == 0:
            return trial
        default = TrialFolder(self._study_dir, 0).result()
        return default if default is not None and default.metrics else None


def slo_outcomes(slos: tuple[Slo, ...], trial: TrialResult) -> tuple[SloOutcome, ...]:
    """Raises OptimizerError when the trial does not have what an SLO is about."""
    return tuple(evaluate(slo, trial.metrics, trial.estimates, trial.quality, trial.cost) for slo in slos)
