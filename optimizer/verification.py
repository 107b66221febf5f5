"""`verify`: default and recommended config once more, interleaved A B B A, on traffic the search has not seen.

Does not know how the recommended one was found.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.backend import Backend, Server
from engine.config import EngineConfig
from optimizer.client import Client, Report, silent
from optimizer.comparison import compare_runs, compare_saturation, mean_metrics, not_worse, sound
from optimizer.engine_pair import Turn, serving_in_turns
from optimizer.fidelity import TrialWindow
from optimizer.launching import Launcher
from optimizer.measurement import Measurement, measure
from optimizer.model_vocabulary import vocab_size
from optimizer.objective import Objective
from optimizer.placement import Placement
from optimizer.quality.evaluate import QualityEvaluator, reference_config
from optimizer.results import Comparison, QualityScore, SloOutcome, Verification
from optimizer.saturation import saturate
from optimizer.slo import Slo, evaluate
from workloads.estimate import Estimate
from workloads.records import write_records

DEFAULT, RECOMMENDED = "default", "recommended"
ORDER = (DEFAULT, RECOMMENDED, RECOMMENDED, DEFAULT)
PROBE_S = 3.0


def verify(
    *,
    backend: Backend,
    default: EngineConfig,
    recommended: EngineConfig,
    window: TrialWindow,
    slos: tuple[Slo, ...],
    quality: QualityEvaluator | None,
    placement: Placement,
    directory: Path,
    objective: Objective | None = None,
    probe_s: float = PROBE_S,
    report: Report = silent,
) -> Verification:
    """Both engines stay up where memory allows; only one is sent traffic at a time. Writes `<directory>/`.

    `quality` is an evaluator over the held-out workload (its own directory). When the recommended config is the
    default there is nothing to compare: it is replayed twice and checked against the SLOs.

    Raises:
        EngineError: one of the two cannot run.
    """
    configs = {DEFAULT: default, RECOMMENDED: recommended}
    if default == recommended:
        configs = {RECOMMENDED: recommended}
    bench = _Bench(configs, window, slos, quality, placement, directory, probe_s, report)
    with serving_in_turns(backend, configs, directory=directory, report=report) as turn:
        bench.replay(turn)
        bench.examine(turn, backend)
    return bench.verification(objective)


@dataclass
class _Bench:
    """What one verification has measured so far."""

    configs: dict[str, EngineConfig]
    window: TrialWindow
    slos: tuple[Slo, ...]
    quality: QualityEvaluator | None
    placement: Placement
    directory: Path
    probe_s: float
    report: Report

    def __post_init__(self) -> None:
        self.order = [name for name in ORDER if name in self.configs]
        self.runs: dict[str, list[Measurement]] = {name: [] for name in self.configs}
        self.saturation: dict[str, Estimate] = {}
        self.score: QualityScore | None = None
        self.notes: list[str] = []

    def replay(self, turn: Turn) -> None:
        """The interleaved replays, each config's last one followed by its saturation probe."""
        for number, name in enumerate(self.order, start=1):
            phase = f"replay {number} of {len(self.order)}, {name}"
            with turn(name) as server:
                client = self._client(server, name)
                run = measure(client, self.window, slos=self.slos, report=self._telling(phase))
                write_records(self.directory / f"records-{number}-{name}.parquet", run.records)
                self.runs[name].append(run)
                if len(self.runs[name]) == 2 and self.probe_s > 0:
                    self.saturation[name] = self._saturate(client, name)
            if run.void_reason:
                self.notes.append(f"{phase} is left out: {run.void_reason}")

    def _saturate(self, client: Client, name: str) -> Estimate:
        self.report(f"probing saturation, {name}")
        client.server.reset_prefix_cache()
        concurrency = self.configs[name].max_num_seqs
        return saturate(client, self.window.probe, concurrency=concurrency, probe_s=self.probe_s)

    def examine(self, turn: Turn, backend: Backend) -> None:
        """Quality of the recommended config on the held-out requests; the reference's first where it is unknown."""
        recommended = self.configs[RECOMMENDED]
        if self.quality is None:
            return
        if recommended.quality_class() == self.quality.reference_class:
            self.notes.append(
                "the recommended config computes what the reference computes: its quality is 1 by definition"
            )
            return
        if not self.quality.has_reference:
            self._make_reference(turn, backend, self.quality)
        with turn(RECOMMENDED) as server:
            self.score = self.quality.score(server, recommended, report=self.report)

    def _make_reference(self, turn: Turn, backend: Backend, quality: QualityEvaluator) -> None:
        default = self.configs.get(DEFAULT)
        if default is not None and default.quality_class() == quality.reference_class:
            with turn(DEFAULT) as server:
                quality.score(server, default, report=self.report)
            return
        reference = reference_config(self.configs[RECOMMENDED])
        log_path = self.directory / "reference.log"
        with Launcher(backend).launch(reference, log_path=log_path, report=self._telling("reference")) as server:
            quality.score(server, reference, report=self.report)

    def verification(self, objective: Objective | None) -> Verification:
        """What was found, and whether it holds."""
        slos = self._outcomes()
        comparisons = self._comparisons()
        runs = {name: sound(runs) for name, runs in self.runs.items()}
        told = bool(runs[RECOMMENDED]) and (DEFAULT not in runs or bool(comparisons))
        if not told:
            self.notes.append("nothing was verified: the load generator was late. Verify again on an idle machine")
        return Verification(
            workload_name=self.window.window.metadata.name,
            num_requests=len(self.window.window),
            order="".join("A" if name == DEFAULT else "B" for name in self.order),
            comparisons=comparisons,
            quality=self.score,
            slos=slos,
            holds=told and all(outcome.violation <= 0 for outcome in slos) and not_worse(objective, comparisons),
            notes=(*self.window.notes, *self.notes),
        )

    def _comparisons(self) -> tuple[Comparison, ...]:
        if DEFAULT not in self.configs:
            return ()
        found = compare_runs(self.runs[DEFAULT], self.runs[RECOMMENDED])
        if found and len(self.saturation) == 2:
            found += (compare_saturation(self.saturation[DEFAULT], self.saturation[RECOMMENDED]),)
        return found

    def _outcomes(self) -> tuple[SloOutcome, ...]:
        """Of the recommended config; limits on cost are about the recorded load and not measured here."""
        runs = sound(self.runs[RECOMMENDED])
        if not runs:
            return ()
        metrics = mean_metrics(runs)
        able = {"replay"} | ({"quality"} if self.score else set())
        told = [slo for slo in self.slos if slo.measure.source in able]
        if any(slo.measure.source == "cost" for slo in self.slos):
            self.notes.append("limits on cost are not measured again")
        return tuple(evaluate(slo, metrics, {}, self.score, None) for slo in told)

    def _client(self, server: Server, name: str) -> Client:
        return Client(server=server, placement=self.placement, vocab_size=vocab_size(self.configs[name]))

    def _telling(self, phase: str) -> Report:
        return lambda text: self.report(f"{phase}: {text}")
