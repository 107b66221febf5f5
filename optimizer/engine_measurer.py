"""`EngineMeasurer`: launch a candidate, replay traffic against it, score its answers, probe its capacity, price it.

Does not choose candidates and does not compare them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engine.backend import Backend, Refusal, Server
from engine.config import EngineConfig
from optimizer.capacity import Capacity, probe_capacity, probe_saturation
from optimizer.client import HANG_S, Client, Report, silent
from optimizer.cost import RecordedLoad, price
from optimizer.early_stop import EarlyStop, bounds_of
from optimizer.fidelity import Fidelity, TrialWindow
from optimizer.findings import Findings
from optimizer.launching import Launcher
from optimizer.measurement import Measurement, measure
from optimizer.model_vocabulary import vocab_size
from optimizer.objective import Objective
from optimizer.placement import Placement
from optimizer.quality.evaluate import QualityEvaluator, reference_config
from optimizer.results import Cost, Provenance, QualityScore
from optimizer.slo import Slo
from optimizer.trial_folder import TrialFolder
from search_spaces.skus import Sku, find_sku
from workloads.estimate import Estimate
from workloads.stopping.first_to_stop import FirstToStop


def _of_the_reference(report: Report) -> Report:
    return lambda text: report(f"quality reference: {text}")


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
        early_stop: bool = True,
    ) -> None:
        self._launcher = Launcher(backend)
        self._backend, self._study_dir, self._window, self._fidelity = backend, study_dir, window, fidelity
        self._load, self._quality, self._objective, self._slos = load, quality, objective, slos
        self._skus, self._placement, self._hang_s = skus, placement, hang_s
        self._server_notes: dict[str, None] = {}  # in order, each once
        self.served_models: tuple[str, ...] = ()  # by the last server that was measured
        self._early_stop = None
        if early_stop:
            self._early_stop = EarlyStop(
                study_dir=study_dir, objective=objective, slos=slos, num_requests=len(window.window)
            )

    @property
    def notes(self) -> tuple[str, ...]:
        return (self._placement.note, *self._server_notes)

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
        log_path = self._study_dir / "quality" / "engine.log"
        with self._launcher.launch(reference, log_path=log_path, report=_of_the_reference(report)) as server:
            self._quality.score(server, reference, report=report)

    def find(self, config: EngineConfig, folder: TrialFolder, report: Report) -> Findings:
        with self._launcher.launch(config, log_path=folder.log_path, report=report) as server:
            client = Client(
                server=server, placement=self._placement, vocab_size=vocab_size(config), hang_s=self._hang_s
            )
            saturation = self._saturation(client, config, report)
            at_best = self._price(config, Capacity(tokens_per_second=saturation, basis="saturation"))
            measurement = measure(
                client,
                self._window,
                slos=self._slos,
                wanted=self._objective.metric_names,
                make_rule=lambda: self._rule(config, at_best),
                report=report,
            )
            self.served_models = measurement.served_models
            folder.write_records(measurement.records)
            folder.write_steps(server.steps())
            if measurement.stop_reason and not measurement.void_reason:
                folder.write_notes(measurement.notes)
                return Findings(
                    metrics={},
                    quality=self._known_quality(config),
                    stop_reason=measurement.stop_reason,
                    bounds=bounds_of(measurement.exceeded, at_best),
                    weights=server.weights,
                )
            quality = self._quality_of(server, config, report)
            if measurement.void_reason:  # quality is no matter of time; the figures are nobody's to copy
                folder.write_notes(measurement.notes)
                void = measurement.void_reason
                return Findings(metrics={}, quality=quality, void_reason=void, weights=server.weights)
            cost = self._cost(client, config, measurement, saturation, folder, report)
            self._server_notes |= dict.fromkeys(server.notes)
            return Findings(
                metrics=measurement.flat,
                estimates=measurement.estimates,
                quality=quality,
                cost=cost,
                weights=server.weights,
            )

    def _rule(self, config: EngineConfig, at_best: Cost) -> FirstToStop | None:
        if self._early_stop is None:
            return None
        return self._early_stop.rule(config, quality=self._known_quality(config), cost=at_best)

    def _known_quality(self, config: EngineConfig) -> QualityScore | None:
        return None if self._quality is None else self._quality.known(config.quality_class())

    def _saturation(self, client: Client, config: EngineConfig, report: Report) -> Estimate:
        """Before the replay, so that what the config costs at best can help to end it early."""
        probe_s = self._fidelity.probe_s
        return probe_saturation(client, self._window, max_num_seqs=config.max_num_seqs, probe_s=probe_s, report=report)

    def _quality_of(self, server: Server, config: EngineConfig, report: Report) -> QualityScore | None:
        return None if self._quality is None else self._quality.score(server, config, report=report)

    def _cost(
        self,
        client: Client,
        config: EngineConfig,
        measurement: Measurement,
        saturation: Estimate,
        folder: TrialFolder,
        report: Report,
    ) -> Cost:
        capacity = probe_capacity(
            client,
            self._window,
            measurement,
            max_num_seqs=config.max_num_seqs,
            probe_s=self._fidelity.probe_s,
            slos=self._slos,
            saturation=saturation,
            report=report,
        )
        folder.write_notes([*measurement.notes, *capacity.notes])
        return self._price(config, capacity)

    def _price(self, config: EngineConfig, capacity: Capacity) -> Cost:
        sku = find_sku(self._skus, config.hardware.sku)
        return price(capacity, self._load, sku=sku, sku_count=config.hardware.count)
