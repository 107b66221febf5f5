"""`verify_deployment`: is what a `best.yaml` promises still true, measured now on the traffic that is given.

Does not know the study it came from.
"""

from __future__ import annotations

from pathlib import Path

from engine.backend import Backend
from optimizer.client import Client, Report, silent
from optimizer.comparison import LOWER_IS_BETTER, mean_metrics, over_runs, sound
from optimizer.fidelity import TrialWindow
from optimizer.launching import Launcher
from optimizer.measurement import Measurement, measure
from optimizer.model_vocabulary import vocab_size
from optimizer.placement import Placement
from optimizer.quality.evaluate import QualityEvaluator, reference_config
from optimizer.results import Comparison, Deployment, QualityScore, Verification
from optimizer.slo import Slo, evaluate
from workloads.estimate import Estimate

NUM_RUNS = 2


def verify_deployment(
    *,
    backend: Backend,
    deployment: Deployment,
    window: TrialWindow,
    slos: tuple[Slo, ...],
    quality: QualityEvaluator | None,
    placement: Placement,
    directory: Path,
    report: Report = silent,
) -> Verification:
    """In its comparisons `default` is what was promised and `recommended` what is measured now.

    It holds when no SLO is violated and no promised number is worse now beyond doubt (the intervals do not meet).
    Throughput at recorded arrivals is the traffic's, not the config's: it is no promise.

    Raises:
        EngineError: the config cannot run.
    """
    config = deployment.config
    score = None
    launcher = Launcher(backend)
    if quality is not None and config.quality_class() != quality.reference_class and not quality.has_reference:
        reference = reference_config(config)
        with launcher.launch(reference, log_path=directory / "reference.log", report=report) as server:
            quality.score(server, reference, report=report)
    with launcher.launch(config, log_path=directory / "engine.log", report=report) as server:
        client = Client(server=server, placement=placement, vocab_size=vocab_size(config))
        runs = [measure(client, window, slos=slos, report=report) for _ in range(NUM_RUNS)]
        if quality is not None and config.quality_class() != quality.reference_class:
            score = quality.score(server, config, report=report)
    return _verification(deployment, window, slos, runs, score)


def _verification(
    deployment: Deployment,
    window: TrialWindow,
    slos: tuple[Slo, ...],
    runs: list[Measurement],
    score: QualityScore | None,
) -> Verification:
    void = [f"a replay is left out: {run.void_reason}" for run in runs if run.void_reason]
    runs = sound(runs)
    comparisons = _against_promises(deployment, runs, score) if runs else ()
    able = {"replay"} | ({"quality"} if score else set())
    metrics = mean_metrics(runs) if runs else {}
    told = [slo for slo in slos if slo.measure.source in able] if runs else []
    outcomes = tuple(evaluate(slo, metrics, {}, score, None) for slo in told)
    fulfilled = all(comparison.improvement.high >= 1 for comparison in comparisons)
    return Verification(
        workload_name=window.window.metadata.name,
        num_requests=len(window.window),
        order="B" * NUM_RUNS,
        comparisons=comparisons,
        quality=score,
        slos=outcomes,
        holds=bool(runs) and all(outcome.violation <= 0 for outcome in outcomes) and fulfilled,
        notes=(*window.notes, *void),
    )


def _against_promises(
    deployment: Deployment, runs: list[Measurement], score: QualityScore | None
) -> tuple[Comparison, ...]:
    now = {
        name: over_runs([run.estimates[name] for run in runs])
        for name in LOWER_IS_BETTER
        if all(name in run.estimates for run in runs)
    }
    if score is not None:
        now["quality"] = score.quality
    promised = deployment.evidence
    return tuple(_compare(name, promised[name], estimate) for name, estimate in now.items() if name in promised)


def _compare(name: str, promised: Estimate, now: Estimate) -> Comparison:
    improvement = _ratio(now, promised) if name == "quality" else _ratio(promised, now)
    return Comparison(metric=name, default=promised, recommended=now, improvement=improvement)


def _ratio(above: Estimate, below: Estimate) -> Estimate:
    """The far ends of both, for measurements of different days that nothing pairs."""
    return Estimate(
        value=above.value / below.value,
        low=above.low / below.high,
        high=above.high / max(below.low, 1e-12),
        num_samples=above.num_samples + below.num_samples,
    )
