"""`run_study`: the main job's loop, from a workload and an objective to a `StudyResult`.

Does not print, export or track: it tells an `Observer`, and the command line does the rest.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from engine.backend import Backend, EngineError
from engine.config import EngineConfig
from engine.simulated_backend import SimulatedBackend
from engine.warm_backend import WarmBackend
from optimizer.adapter_use import AdapterUse, adapter_use
from optimizer.cost import recorded_load
from optimizer.engine_measurer import EngineMeasurer
from optimizer.environment import describe_environment
from optimizer.errors import OptimizerError
from optimizer.evaluator import Evaluator
from optimizer.fidelity import TAIL_SHARE, Fidelity, choose_window, plan_fidelity
from optimizer.findings import Measurer
from optimizer.objective import Objective
from optimizer.pareto import pareto_front
from optimizer.placement import Placement, placement_for
from optimizer.quality.evaluate import QualityEvaluator, reference_config
from optimizer.recommendation import recommend
from optimizer.results import Recommendation, StudyResult, TrialResult, TrialState, Verification
from optimizer.simulated_measurer import SimulatedMeasurer
from optimizer.slo import Slo
from optimizer.study import Study
from optimizer.verification import verify
from search_spaces.skus import Sku
from search_spaces.space import SearchSpace
from workloads.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything the user asked for, read and checked."""

    name: str
    directory: Path  # runs/<study>
    workload: Workload  # the train part
    workload_file: Path  # from which it was read
    heldout: Workload
    space: SearchSpace
    base: EngineConfig  # the default config, trial 0
    objective: Objective
    slos: tuple[Slo, ...]
    skus: Mapping[str, Sku]
    budget_s: float | None
    max_trials: int | None
    seed: int
    strategy: str
    resume: bool
    verify: bool = True
    early_stop: bool = True  # end a trial's replay once it is rejected beyond doubt
    notes: tuple[str, ...] = ()  # for the reader: how the traffic was parted, what the space lacks


class Observer(Protocol):
    """Who watches a study: the terminal and the tracker."""

    def phase(self, label: str, text: str) -> None: ...

    def say(self, text: str) -> None: ...

    def trial_done(self, result: TrialResult, so_far: list[TrialResult]) -> None: ...


def run_study(job: Job, *, backend: Backend | SimulatedBackend, observer: Observer) -> StudyResult:
    """Search within the budget, recommend, verify on held-out traffic where an engine can be launched.

    Ctrl-C ends the search and keeps what was measured (`StudyResult.interrupted`).

    Raises:
        OptimizerError: the default config itself cannot run; there is nothing to compare with.
    """
    started = time.monotonic()
    placement = placement_for(job.workload)
    fidelity = plan_fidelity(job.budget_s, requests_per_s=recorded_load(job.workload).rate_rps)
    study = Study.create_or_resume(
        directory=job.directory,
        space=job.space,
        base=job.base,
        objective=job.objective,
        slos=job.slos,
        seed=job.seed,
        strategy=job.strategy,
        workload_fingerprint=job.workload.fingerprint,
        resume=job.resume,
    )
    if job.base.engine in ("bundled", "vllm") and (use := _adapter_use(job)) is not None:
        observer.say(use.sentence())
    with _measurer(job, backend, fidelity, placement) as measurer:
        evaluator = Evaluator(measurer=measurer, study_dir=job.directory, objective=job.objective, slos=job.slos)
        search = _Search(
            job=job, study=study, evaluator=evaluator, observer=observer, fidelity=fidelity, started=started
        )
        interrupted = search.run()
    recommendation = _recommend(job, study.results)
    verification = None
    if isinstance(backend, SimulatedBackend):
        verification = None  # nothing here could measure it
    elif job.verify and recommendation is not None and not interrupted:
        try:
            verification = _verify(job, study, recommendation, backend, fidelity, placement, observer)
        except KeyboardInterrupt:
            interrupted = True
    notes = (*job.notes, *search.notes, *measurer.notes)
    use = None if isinstance(backend, SimulatedBackend) else _adapter_use(job, measurer.served_models)
    duration_s = time.monotonic() - started
    return _study_result(job, study, recommendation, verification, use, interrupted, duration_s, notes)


def _adapter_use(job: Job, served_models: tuple[str, ...] = ()) -> AdapterUse | None:
    return adapter_use((job.workload, job.heldout), {*job.base.lora_modules, *served_models})


@contextmanager
def _measurer(
    job: Job, backend: Backend | SimulatedBackend, fidelity: Fidelity, placement: Placement
) -> Iterator[Measurer]:
    if isinstance(backend, SimulatedBackend):
        yield SimulatedMeasurer(
            backend=backend,
            workload=job.workload,
            skus=job.skus,
            objective=job.objective,
            slos=job.slos,
            model=Path(job.base.model),
            seed=job.seed,
        )
        return
    with WarmBackend(backend) as warm:
        yield EngineMeasurer(
            backend=warm,
            study_dir=job.directory,
            window=choose_window(job.workload, fidelity.window_s, num_warmup=fidelity.warmup_requests, seed=job.seed),
            fidelity=fidelity,
            load=recorded_load(job.workload),
            quality=_quality(job, job.workload, job.directory / "quality", fidelity, placement),
            objective=job.objective,
            slos=job.slos,
            skus=job.skus,
            placement=placement,
            early_stop=job.early_stop,
        )


def _quality(
    job: Job, workload: Workload, directory: Path, fidelity: Fidelity, placement: Placement
) -> QualityEvaluator:
    return QualityEvaluator(
        directory=directory,
        workload=workload,
        reference_class=reference_config(job.base).quality_class(),
        num_requests=fidelity.quality_requests,
        num_requests_max=fidelity.quality_requests_max,
        floor=_quality_floor(job.slos),
        placement=placement,
        seed=job.seed,
    )


def _quality_floor(slos: tuple[Slo, ...]) -> float | None:
    """The highest limit that quality must reach; None without one."""
    return max((slo.limit for slo in slos if slo.measure.name == "quality" and not slo.is_upper), default=None)


@dataclass(kw_only=True)
class _Search:
    """The part that repeats, and its arithmetic of time."""

    job: Job
    study: Study
    evaluator: Evaluator
    observer: Observer
    fidelity: Fidelity
    started: float
    notes: tuple[str, ...] = ()

    def run(self) -> bool:
        """Returns whether the user interrupted."""
        try:
            self.evaluator.prepare(self.job.base, report=lambda text: self.observer.phase("preparing", text))
            while self._may_start_another():
                if not self._one():
                    self.notes += ("every config of the space was tried",)
                    break
        except KeyboardInterrupt:
            return True
        return False

    def _one(self) -> bool:
        suggestion = self.study.ask()
        if suggestion is None:
            return False
        label = suggestion.config.label(self.job.base)
        result = self.evaluator.evaluate(
            suggestion.number,
            suggestion.config,
            origin=suggestion.origin,
            report=lambda text: self.observer.phase(f"trial {suggestion.number} · {label}", text),
        )
        self.study.tell(result)
        self.observer.trial_done(result, self.study.results)
        if result.number == 0 and result.state is not TrialState.COMPLETE:
            raise OptimizerError(f"the default config cannot run here: {result.reason}")
        return True

    def _may_start_another(self) -> bool:
        done = self.study.results
        if self.job.max_trials is not None and len(done) >= self.job.max_trials:
            return False
        if self.job.budget_s is None or not done:
            return True
        # the dearest recent trial is the safer guess: a new quality class costs an evaluation
        expected = max((trial.duration_s for trial in done[-4:]), default=0.0)
        left = self.job.budget_s - (time.monotonic() - self.started) - self.verification_s()
        return expected <= left

    def verification_s(self) -> float:
        """Four replays with their warm-ups, two launches, and the quality of the two classes on held-out requests."""
        return verification_seconds(self.fidelity) if self.job.verify else 0.0


def verification_seconds(fidelity: Fidelity) -> float:
    """A prediction, for the budget and the ETA."""
    return 4 * ((1 + TAIL_SHARE) * fidelity.verification_s + 3) + 20


def _recommend(job: Job, trials: list[TrialResult]) -> Recommendation | None:
    return recommend(trials, objective=job.objective, slos=job.slos)


def _verify(
    job: Job,
    study: Study,
    recommendation: Recommendation,
    backend: Backend,
    fidelity: Fidelity,
    placement: Placement,
    observer: Observer,
) -> Verification | None:
    """None when an engine failed; the report then says that nothing was verified."""
    window = choose_window(job.heldout, fidelity.verification_s, num_warmup=fidelity.warmup_requests, seed=job.seed)
    directory = job.directory / "verification"
    recommended = next(trial for trial in study.results if trial.number == recommendation.trial)
    try:
        return verify(
            backend=backend,
            default=job.base,
            recommended=recommended.config,
            window=window,
            slos=job.slos,
            quality=_quality(job, job.heldout, directory / "quality", fidelity, placement),
            placement=placement,
            directory=directory,
            objective=job.objective,
            report=lambda text: observer.phase("verifying on held-out traffic", text),
        )
    except EngineError as error:
        observer.say(f"the verification failed: {error}")
        return None


def _study_result(
    job: Job,
    study: Study,
    recommendation: Recommendation | None,
    verification: Verification | None,
    use: AdapterUse | None,
    interrupted: bool,
    duration_s: float,
    notes: tuple[str, ...],
) -> StudyResult:
    trials = tuple(sorted(study.results, key=lambda trial: trial.number))
    load = recorded_load(job.workload)
    return StudyResult(
        name=job.name,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        workload_name=job.workload.metadata.name,
        workload_fingerprint=job.workload.fingerprint,
        workload_file=str(job.workload_file),
        workload_summary={
            "requests": len(job.workload),
            "requests_per_second": round(load.rate_rps, 3),
            "tokens_per_request": round(load.tokens_per_request, 1),
            "heldout_requests": len(job.heldout),
        },
        objective=job.objective.text,
        slos=tuple(str(slo) for slo in job.slos),
        space_name=job.space.name,
        space_size=job.space.size(),
        seed=job.seed,
        trials=trials,
        front=pareto_front(trials),
        recommendation=recommendation,
        verification=verification,
        adapters=use,
        environment=describe_environment(),
        interrupted=interrupted,
        duration_s=duration_s,
        notes=tuple(note for note in notes if note),
    )
