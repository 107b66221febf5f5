"""`SimulatedMeasurer`: what a simulator says about a candidate: latencies of its fleet, capacity, price.

Does not measure and says nothing about quality. Everything it finds is marked predicted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engine.backend import EngineError, FailureKind, Refusal
from engine.config import EngineConfig
from engine.simulated_backend import SimulatedBackend
from engine.simulator.errors import SimulatorError
from optimizer.client import Report, silent
from optimizer.cost import RecordedLoad, recorded_load
from optimizer.fidelity import choose_window, part_of
from optimizer.findings import Findings
from optimizer.measurement import defined_metrics
from optimizer.objective import Objective
from optimizer.predicted_fleet import PredictedFleet, predict_fleet
from optimizer.prompt_tokens import PromptTokenizer
from optimizer.results import Provenance
from optimizer.simulated_replay import SimulatedReplay, simulated_replay
from optimizer.slo import Slo
from optimizer.trial_folder import TrialFolder
from search_spaces.skus import Sku, find_sku
from workloads.workload import Workload

MAX_REQUESTS = 2000  # simulated per candidate
NO_QUALITY = "quality is not predicted: measure what is recommended before it replaces an unquantized model"


class SimulatedMeasurer:
    """A `Measurer` without an engine."""

    provenance = Provenance.PREDICTED
    served_models: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        backend: SimulatedBackend,
        workload: Workload,
        skus: Mapping[str, Sku],
        objective: Objective,
        slos: tuple[Slo, ...],
        model: Path | None = None,
        seed: int = 0,
    ) -> None:
        """`model`: whose tokenizer tells which prompts share a prefix.

        Raises:
            OptimizerError: a workload without arrivals or token counts.
        """
        self._backend, self._skus, self._objective, self._slos = backend, skus, objective, slos
        self._load: RecordedLoad = recorded_load(workload)
        part = simulated_part(workload, seed=seed)
        self._closed_loop = "closed_loop" in workload.capabilities  # as the replayer chooses
        self._replay: SimulatedReplay = simulated_replay(
            part, closed_loop=self._closed_loop, token_ids=None if model is None else PromptTokenizer(model)
        )
        self._num_requests = len(workload)
        self._num_for_adapters = len(workload) - workload.table.column("adapter").null_count

    @property
    def notes(self) -> tuple[str, ...]:
        simulated = f"{len(self._replay.requests):,} of {self._num_requests:,} requests are simulated per trial"
        pace = "turns wait for the replies before them" if self._closed_loop else "at the recorded arrivals"
        found = (
            f"{simulated}, {pace}; latencies are those of all replicas together, behind a router to the least loaded",
            NO_QUALITY,
        )
        if not self._num_for_adapters:
            return found
        return (*found, f"{self._num_for_adapters:,} requests name a LoRA adapter: they are predicted without it")

    def check(self, config: EngineConfig) -> list[Refusal]:
        return self._backend.check(config)

    def prepare(self, default: EngineConfig, *, report: Report = silent) -> None:
        """Nothing is needed."""

    def find(self, config: EngineConfig, folder: TrialFolder, report: Report) -> Findings:
        report("simulating")
        sku = find_sku(self._skus, config.hardware.sku)
        try:
            serving = self._backend.serving(config)
            fleet = predict_fleet(
                self._replay, serving, self._load, sku=sku, sku_count=config.hardware.count, slos=self._slos
            )
        except SimulatorError as error:
            raise EngineError(str(error), kind=FailureKind.UNSUPPORTED) from None
        folder.write_records(self._replay.records(fleet.outcome))
        basis = serving.oracle.provenance.sentence()
        folder.write_notes([f"predicted, not measured; {basis}", *fleet.notes, *fleet.metrics.notes()])
        return Findings(metrics=self._metrics(fleet), cost=fleet.cost, basis="; ".join([basis, *fleet.notes]))

    def _metrics(self, fleet: PredictedFleet) -> dict[str, float]:
        replayed = [slo.flat_name for slo in self._slos if slo.measure.source == "replay"]
        asked = (*self._objective.metric_names, *replayed)
        found = fleet.metrics.flat() | defined_metrics(fleet.metrics, asked)
        cached = float(fleet.outcome.num_cached_tokens.sum() / self._replay.traffic.input_tokens.sum())
        preempted = float(fleet.outcome.num_preemptions.sum())
        return found | {"prefix_cache_hit_rate": cached, "num_preemptions": preempted}


def simulated_part(workload: Workload, *, max_requests: int = MAX_REQUESTS, seed: int = 0) -> Workload:
    """The whole workload, or its most typical contiguous part of about `max_requests`; arrivals from 0.

    Raises:
        OptimizerError: a workload without arrivals.
    """
    if len(workload) <= max_requests:
        return part_of(workload, workload)
    seconds = max_requests / recorded_load(workload).rate_rps
    return choose_window(workload, seconds, num_warmup=0, seed=seed).window
