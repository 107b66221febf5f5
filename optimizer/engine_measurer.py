"""`EngineMeasurer`: launch a candidate, replay traffic against it, score its answers, probe its capacity, price it.

Does not choose candidates and does not compare them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engine.backend import Backend, Refusal, Server
from engine.config import EngineConfig
from optimizer.capacity import probe_capacity
from optimizer.client import HANG_S, Client, Report, silent
from optimizer.cost import RecordedLoad, price
from optimizer.fidelity import Fidelity, TrialWindow
from optimizer.findings import Findings
from optimizer.measurement import Measurement, measure
from optimizer.model_vocabulary import vocab_size
from optimizer.objective import Objective
from optimizer.placement import Placement
from optimizer.quality.evaluate import QualityEvaluator, reference_config
from optimizer.results import Cost, Provenance, QualityScore
from optimizer.slo import Slo
from optimizer.trial_folder import TrialFolder
from search_spaces.skus import Sku, find_sku


class EngineMeasurer:
    """A `Measurer` over a backend that launches."""

    provenance = Provenance.MEASURED

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

    @property
    def notes(self) -> tuple[str, ...]:
        return (self._placement.note,)

    def check(self, config: EngineConfig) -> list[Refusal]:
        return self._backend.check(config)

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

    def find(self, config: EngineConfig, folder: TrialFolder, report: Report) -> Findings:
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
            cost = self._cost(client, config, measurement, folder, report)
            folder.write_steps(server.steps())  # anew: the probe showed the engine's largest steps
            return Findings(
                metrics=measurement.flat,
                estimates=measurement.estimates,
                quality=quality,
                cost=cost,
                void_reason=measurement.void_reason,
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
