"""`Evaluator`: one candidate from config to `TrialResult`: check, launch, measure, quality, capacity, price, write.

Does not choose candidates and does not compare them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from engine.backend import Backend, EngineError, FailureKind, Server
from engine.config import EngineConfig
from optimizer.capacity import probe_capacity
from optimizer.client import HANG_S, Client, Report, silent
from optimizer.cost import RecordedLoad, price
from optimizer.errors import OptimizerError
from optimizer.fidelity import Fidelity, TrialWindow
from optimizer.measurement import Measurement, measure
from optimizer.model_vocabulary import vocab_size
from optimizer.objective import Objective
from optimizer.placement import Placement
from optimizer.quality.evaluate import QualityEvaluator, reference_config
from optimizer.results import Cost, QualityScore, SloOutcome, TrialResult, TrialState
from optimizer.slo import Slo, evaluate
from optimizer.trial_folder import TrialFolder
from search_spaces.skus import Sku, find_sku


@dataclass(frozen=True, kw_only=True)
class _Findings:
    """All that one launched candidate told."""

    measurement: Measurement
    quality: QualityScore | None
    cost: Cost


class Evaluator:
    """Evaluates candidates of one study, one at a time, on the same window."""

    def __init__(
        self,
        *,
        backend: Backend,
        study_dir: Path,
        window: TrialWindow,
        fidelity: Fidelity,
        load: RecordedLoad,
        quality: QualityEvaluator | None,
        objective: Objective,
        slos: tuple[Slo, ...],
        skus: Mapping[str, Sku],
        placement: Placement,
        hang_s: float = HANG_S,
    ) -> None:
        self._backend, self._study_dir, self._window, self._fidelity = backend, study_dir, window, fidelity
        self._load, self._quality, self._objective, self._slos = load, quality, objective, slos
        self._skus, self._placement, self._hang_s = skus, placement, hang_s

    def prepare(self, default: EngineConfig, *, report: Report = silent) -> None:
        """Make the quality reference where trial 0 will not: when the default config is itself quantized.

        Raises:
            EngineError: the reference config cannot run.
        """
        reference = reference_config(default)
        if self._quality is None or self._quality.has_reference or default.quality_class() == reference.quality_class():
            return
        report("launching the reference")
        log_path = self._study_dir / "quality" / "engine.log"
        with self._backend.launch(reference, log_path=log_path) as server:
            self._quality.score(server, reference, report=report)

    def evaluate(self, number: int, config: EngineConfig, *, origin: str, report: Report = silent) -> TrialResult:
        """Measure one candidate and write `trials/NNNN/`; engine failures are results, never exceptions."""
        folder = TrialFolder(self._study_dir, number)
        started_at, start = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
        folder.begin(config)
        result = self._outcome(number, config, folder, report).model_copy(
            update={
                "origin": origin,
                "started_at": started_at,
                "duration_s": round(time.monotonic() - start, 3),
                "directory": folder.relative,
            }
        )
        folder.finish(result)
        return result

    def _outcome(self, number: int, config: EngineConfig, folder: TrialFolder, report: Report) -> TrialResult:
        refusals = self._backend.check(config)
        if refusals:
            reason = "; ".join(refusal.reason for refusal in refusals)
            kind = refusals[0].kind
            return TrialResult(number=number, config=config, state=TrialState.REFUSED, failure=kind, reason=reason)
        try:
            findings = self._findings(config, folder, report)
        except EngineError as error:
            state = TrialState.REFUSED if error.kind is FailureKind.REFUSED else TrialState.FAILED
            return TrialResult(number=number, config=config, state=state, failure=error.kind, reason=str(error))
        return self._with_verdict(_complete(number, config, findings))

    def _findings(self, config: EngineConfig, folder: TrialFolder, report: Report) -> _Findings:
        report("launching")
        with self._backend.launch(config, log_path=folder.log_path) as server:
            client = Client(
                server=server, placement=self._placement, vocab_size=vocab_size(config), hang_s=self._hang_s
            )
            measurement = measure(
                client, self._window, slos=self._slos, wanted=self._objective.metric_names, report=report
            )
            folder.write_records(measurement.records)
            folder.write_steps(server.steps())
            quality = self._quality_of(server, config, report)
            return _Findings(
                measurement=measurement, quality=quality, cost=self._cost(client, config, measurement, folder, report)
            )

    def _quality_of(self, server: Server, config: EngineConfig, report: Report) -> QualityScore | None:
        return None if self._quality is None else self._quality.score(server, config, report=report)

    def _cost(
        self, client: Client, config: EngineConfig, measurement: Measurement, folder: TrialFolder, report: Report
    ) -> Cost:
        capacity = probe_capacity(
            client,
            self._window,
            measurement,
            max_num_seqs=config.max_num_seqs,
            probe_s=self._fidelity.probe_s,
            slos=self._slos,
            report=report,
        )
        folder.write_notes([*measurement.notes, *capacity.notes])
        sku = find_sku(self._skus, config.hardware.sku)
        return price(capacity, self._load, sku=sku, sku_count=config.hardware.count)

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
        """Trial 0, which weighted objectives are relative to; it is relative to itself."""
        if trial.number == 0:
            return trial
        return TrialFolder(self._study_dir, 0).result()


def slo_outcomes(slos: tuple[Slo, ...], trial: TrialResult) -> tuple[SloOutcome, ...]:
    """Raises OptimizerError when the trial does not have what an SLO is about."""
    return tuple(evaluate(slo, trial.metrics, trial.estimates, trial.quality, trial.cost) for slo in slos)


def _complete(number: int, config: EngineConfig, findings: _Findings) -> TrialResult:
    measurement = findings.measurement
    return TrialResult(
        number=number,
        config=config,
        state=TrialState.COMPLETE,
        metrics=measurement.flat,
        estimates=measurement.estimates,
        quality=findings.quality,
        cost=findings.cost,
        reason=measurement.void_reason,
    )
