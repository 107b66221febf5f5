"""What a study finds: trials, the front, the recommendation and its verification. Plain frozen values, JSON in and out.

Knows neither how they were measured nor how they are told.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from engine.artifacts.checkpoint_record import CheckpointRecord, MadeOf
from engine.backend import FailureKind
from engine.config import EngineConfig
from optimizer.adapter_use import AdapterUse
from workloads.estimate import Estimate


class Provenance(StrEnum):
    MEASURED = "measured"
    PREDICTED = "predicted"


class TrialState(StrEnum):
    COMPLETE = "complete"  # measured or predicted; may still violate constraints
    FAILED = "failed"  # launched and failed; see `failure`
    STOPPED = "stopped"  # ended early: rejected beyond doubt, and not measured; see `TrialResult.bounds`
    REFUSED = "refused"  # `Backend.check` said no; never launched


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class QualityScore(_Result):
    """Quality of one quality class relative to the reference config, on the same requests (design rules, section 9).

    `quality` is the checks' score relative to the reference's where checks exist, else the top-1 agreement.
    `kl_nats` is KL(reference || candidate) per token over the reference's top tokens and one bucket for the rest,
    hence a lower bound of the full divergence.
    """

    quality_class: str
    quality: Estimate
    top1_agreement: Estimate | None
    kl_nats: Estimate | None
    checks_score: Estimate | None  # absolute, 0..1
    checks_by_task: dict[str, float] = {}
    num_requests: int
    num_tokens: int
    is_reference: bool = False
    note: str = ""


class Cost(_Result):
    """What the recorded load costs on this config and SKU.

    usd_per_million_tokens = price x SKUs per replica / (tokens/s of one replica at `capacity_rps` x 3600) x 1e6, tokens
    being input plus output; usd_per_hour = price x SKUs per replica x replicas, replicas rounded up.
    """

    usd_per_million_tokens: Estimate
    usd_per_hour: float
    replicas: int
    utilisation: float  # recorded rate / (replicas x capacity)
    capacity_rps: Estimate  # requests/s of one replica: highest rate at which the SLOs hold, or saturation without SLOs
    capacity_basis: str  # "saturation" or "slo bisection", "simulated ..." where predicted
    sku: str
    sku_count: int
    usd_per_sku_hour: float
    price_as_of: str
    price_source: str


class SloOutcome(_Result):
    """One SLO of the study on one trial. `violation` = relative distance past the limit, <= 0 when it is met."""

    slo: str  # as the user wrote it, e.g. "ttft:p95<300ms"
    value: float  # seconds, or the metric's own unit
    limit: float
    violation: float


class TrialResult(_Result):
    """One candidate and all that is known of it."""

    number: int
    config: EngineConfig
    state: TrialState
    provenance: Provenance = Provenance.MEASURED
    metrics: dict[str, float] = {}  # flat names of `vllm bench serve`, milliseconds; plus acceptance_length, hit rates
    estimates: dict[str, Estimate] = {}  # same names, with intervals, for what objectives and SLOs use
    quality: QualityScore | None = None
    cost: Cost | None = None
    slos: tuple[SloOutcome, ...] = ()
    objective: float | None = None  # minimised; see `StudyResult.objective`
    failure: FailureKind | None = None
    reason: str = ""  # of a failure, a refusal or a stop, or why the measurement is void
    bounds: dict[
        str, float
    ] = {}  # of a stopped trial: what metrics and cost would at least have been; names as `metrics`
    basis: str = ""  # of a prediction: where its step times come from, with their known error
    weights: CheckpointRecord | None = None  # the quantized checkpoint that was loaded in place of `config.model`
    origin: str = ""  # what proposed it: "default", "probe", "surrogate", "tpe", ...
    started_at: str = ""  # ISO 8601
    duration_s: float = 0.0
    directory: str = ""  # relative to the study's folder

    @property
    def feasible(self) -> bool:
        """Measured or predicted, and every SLO and floor met."""
        return self.state is TrialState.COMPLETE and not self.reason and all(o.violation <= 0 for o in self.slos)


def known_by(trials: Iterable[TrialResult]) -> str:
    """How the numbers of complete trials are known: "measured", "predicted", or "tried" where there are both."""
    found = {trial.provenance for trial in trials if trial.state is TrialState.COMPLETE}
    return "tried" if len(found) > 1 else next(iter(found), Provenance.MEASURED).value


class Comparison(_Result):
    """One metric of the default and the recommended config, measured interleaved on held-out traffic."""

    metric: str
    default: Estimate
    recommended: Estimate
    improvement: Estimate  # how many times better the recommended is; > 1 is better whatever the metric's direction


class Verification(_Result):
    """The re-measurement, A B B A, of default (A) and recommended (B)."""

    workload_name: str
    num_requests: int
    order: str = "ABBA"
    comparisons: tuple[Comparison, ...]
    quality: QualityScore | None = None
    slos: tuple[SloOutcome, ...] = ()
    holds: bool  # no SLO violated, and not worse than the default beyond doubt
    notes: tuple[str, ...] = ()


class SloAdvice(_Result):
    """What relaxing one SLO to `limit_needed` would buy; the answer to an infeasible wish."""

    slo: str
    limit_needed: str
    trial: int
    text: str


class Recommendation(_Result):
    """Which trial, and why, in sentences a reader without background understands."""

    trial: int
    feasible: bool
    reasons: tuple[str, ...]
    binding_slos: tuple[str, ...] = ()
    advice: tuple[SloAdvice, ...] = ()


class StudyResult(_Result):
    """Everything a report tells."""

    name: str
    created_at: str
    workload_name: str
    workload_fingerprint: str
    workload_file: str | None = None  # as given, from the working directory
    workload_summary: dict[str, float | int | str]
    objective: str  # as asked
    slos: tuple[str, ...]
    space_name: str
    space_size: int | None
    seed: int
    trials: tuple[TrialResult, ...]
    front: tuple[int, ...]  # trial numbers on the Pareto front over (quality, latency, cost)
    recommendation: Recommendation | None
    verification: Verification | None = None
    adapters: AdapterUse | None = None  # None: no request names one, or nothing was measured
    environment: dict[str, str]
    interrupted: bool = False
    duration_s: float = 0.0
    notes: tuple[str, ...] = ()

    def trial(self, number: int) -> TrialResult:
        """The trial of that number; KeyError when there is none."""
        for trial in self.trials:
            if trial.number == number:
                return trial
        raise KeyError(number)

    @property
    def default(self) -> TrialResult:
        return self.trial(0)


class ArtifactReference(_Result):
    """A file or folder a config needs, by content hash.

    The sha256 of a folder that a config names is of its weights; of one made from another (`made_of`), which a store
    keeps, of all its files.
    """

    role: str  # "model", "draft", "quantized weights"
    path: str
    sha256: str
    made_of: MadeOf | None = None


class Deployment(_Result):
    """What `best.yaml` holds: enough to start exactly this config, and to know why."""

    schema_version: str = "deployment/1"
    config: EngineConfig
    artifacts: tuple[ArtifactReference, ...]
    provenance: Provenance
    study: str
    trial: int
    objective: str
    slos: tuple[str, ...]
    workload_name: str
    workload_fingerprint: str
    workload_file: str | None = None  # where it was then
    evidence: dict[str, Estimate]
    verified: bool
    created_at: str
    created_by: str  # "fireoptimizer 0.1.0"

    @property
    def weights(self) -> CheckpointRecord | None:
        """The quantized checkpoint that was measured; None: the weights of `config.model`, or nobody recorded them."""
        for found in self.artifacts:
            if found.made_of is not None:
                return CheckpointRecord(folder=found.path, content_sha256=found.sha256, made_of=found.made_of)
        return None
