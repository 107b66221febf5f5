"""Test data: made-up studies with plausible numbers. Nothing here was measured."""

from engine.backend import FailureKind
from engine.config import EngineConfig, Quantization, SpeculativeConfig
from optimizer.results import (
    Comparison,
    Cost,
    Provenance,
    QualityScore,
    Recommendation,
    SloAdvice,
    SloOutcome,
    StudyResult,
    TrialResult,
    TrialState,
    Verification,
)
from workloads.estimate import Estimate

DEFAULT = EngineConfig(model="models/demo")
DRAFT = SpeculativeConfig(method="draft_model", num_speculative_tokens=4, model="models/draft")
NGRAM = SpeculativeConfig(method="ngram", num_speculative_tokens=6)
INT8 = Quantization(weights="int8")
INT4 = Quantization(weights="int4_g32")
SLOS = ("ttft:p95<300ms", "quality>=0.99")


def estimate(value: float, spread: float = 0.04, num_samples: int = 412) -> Estimate:
    return Estimate(value=value, low=value * (1 - spread), high=value * (1 + spread), num_samples=num_samples)


def bounded(value: float, low: float, high: float, num_samples: int = 96) -> Estimate:
    return Estimate(value=value, low=low, high=high, num_samples=num_samples)


def quality_of(config: EngineConfig) -> QualityScore:
    """By weight format: bf16 is the reference, int8 nearly it, int4 below the floor."""
    tokens = {"num_requests": 96, "num_tokens": 4180}
    weights = config.quantization.weights
    if weights == "bf16":
        tasks = {"extraction": 0.97, "edit": 0.94, "table": 0.96}
        return QualityScore(quality_class=config.quality_class(), quality=bounded(1.0, 1.0, 1.0), top1_agreement=None,
                            kl_nats=None, checks_score=bounded(0.956, 0.917, 0.982), checks_by_task=tasks,
                            is_reference=True, **tokens)  # fmt: skip
    if weights == "int8":
        tasks = {"extraction": 0.97, "edit": 0.94, "table": 0.95}
        return QualityScore(quality_class=config.quality_class(), quality=bounded(0.9973, 0.9921, 1.0),
                            top1_agreement=bounded(0.9984, 0.9969, 0.9993, 4180),
                            kl_nats=bounded(0.00041, 0.00033, 0.00052, 4180),
                            checks_score=bounded(0.953, 0.914, 0.980), checks_by_task=tasks, **tokens)  # fmt: skip
    tasks = {"extraction": 0.93, "edit": 0.90, "table": 0.91}
    return QualityScore(quality_class=config.quality_class(), quality=bounded(0.956, 0.921, 0.985),
                        top1_agreement=bounded(0.9861, 0.9822, 0.9893, 4180),
                        kl_nats=bounded(0.0113, 0.0098, 0.0131, 4180), checks_score=bounded(0.914, 0.866, 0.950),
                        checks_by_task=tasks, note="tool calls were not checked", **tokens)  # fmt: skip


def cost_of(tokens_per_second: float) -> Cost:
    dollars = 0.12 / (tokens_per_second * 3600) * 1e6
    capacity = tokens_per_second / 180
    return Cost(
        usd_per_million_tokens=bounded(dollars, dollars * 0.95, dollars * 1.06, 180),
        usd_per_hour=0.12,
        replicas=1,
        utilisation=2.4 / capacity,
        capacity_rps=bounded(capacity, capacity * 0.95, capacity * 1.05, 180),
        capacity_basis="saturation",
        sku="local",
        sku_count=1,
        usd_per_sku_hour=0.12,
        price_as_of="2026-01-15",
        price_source="--price local=0.12",
    )


def complete(
    number: int,
    config: EngineConfig,
    *,
    e2el: float,
    ttft: float,
    tpot: float,
    tokens_per_second: float,
    acceptance: float | None = None,
    reason: str = "",
    origin: str = "surrogate",
) -> TrialResult:
    metrics = {
        "p50_e2el_ms": e2el * 0.44, "p95_e2el_ms": e2el, "p50_ttft_ms": ttft * 0.31, "p95_ttft_ms": ttft,
        "p50_tpot_ms": tpot * 0.82, "p95_tpot_ms": tpot, "p95_itl_ms": tpot * 1.9, "p99_schedule_lag_ms": 1.8,
        "request_throughput": 2.38, "output_throughput": 171.2, "completed": 412.0, "failed": 0.0,
        "prefix_cache_hit_rate": 0.412 if config.enable_prefix_caching else 0.0,
    }  # fmt: skip
    if acceptance:
        metrics["acceptance_length"] = acceptance
    quality = quality_of(config)
    past = ttft / 300 - 1
    floor = (0.99 - quality.quality.low) / 0.99
    return TrialResult(
        number=number,
        config=config,
        state=TrialState.COMPLETE,
        metrics=metrics,
        estimates={
            "p95_e2el_ms": estimate(e2el, 0.05),
            "p95_ttft_ms": estimate(ttft, 0.08),
            "p95_tpot_ms": estimate(tpot),
        },
        quality=quality,
        cost=cost_of(tokens_per_second),
        slos=(
            SloOutcome(slo=SLOS[0], value=ttft / 1000, limit=0.3, violation=past),
            SloOutcome(slo=SLOS[1], value=quality.quality.low, limit=0.99, violation=floor),
        ),
        objective=e2el / 1000,
        reason=reason,
        origin=origin,
        started_at=f"2026-02-03T10:{number:02d}:00+00:00",
        duration_s=21.5,
        directory=f"trials/{number:04d}",
    )


def refused(number: int, config: EngineConfig, reason: str) -> TrialResult:
    return TrialResult(number=number, config=config, state=TrialState.REFUSED, failure=FailureKind.REFUSED,
                       reason=reason, origin="probe", directory=f"trials/{number:04d}")  # fmt: skip


def failed(number: int, config: EngineConfig) -> TrialResult:
    return TrialResult(number=number, config=config, state=TrialState.FAILED, failure=FailureKind.OUT_OF_MEMORY,
                       reason="the engine ran out of memory while it made the KV cache. Lower kv_cache_memory_bytes",
                       origin="surrogate", started_at=f"2026-02-03T10:{number:02d}:00+00:00", duration_s=3.2,
                       directory=f"trials/{number:04d}")  # fmt: skip


def void(trial: TrialResult) -> TrialResult:
    """Its replay measured the load generator: quality is all that is known."""
    nothing = {"metrics": {}, "estimates": {}, "cost": None, "slos": (), "objective": None}
    reason = "void: the load generator was late (p99 lag 31 ms is 7% of the median TTFT)"
    return trial.model_copy(update={**nothing, "reason": reason})


def config(**changes: object) -> EngineConfig:
    return EngineConfig.model_validate({**DEFAULT.model_dump(), **changes})


def trials() -> tuple[TrialResult, ...]:
    return (
        complete(0, DEFAULT, e2el=1574, ttft=412, tpot=18.4, tokens_per_second=642, origin="default"),
        complete(1, config(quantization=INT8), e2el=1312, ttft=355, tpot=15.1, tokens_per_second=771, origin="probe"),
        complete(2, config(speculative_config=DRAFT), e2el=1033, ttft=318, tpot=11.6, tokens_per_second=803,
                 acceptance=3.41, origin="probe"),
        complete(3, config(speculative_config=NGRAM), e2el=1268, ttft=367, tpot=14.0, tokens_per_second=735,
                 acceptance=2.08, origin="probe"),
        refused(4, config(tensor_parallel_size=2), "2 devices are asked for and this machine has 1"),
        complete(5, config(quantization=INT4), e2el=1246, ttft=331, tpot=14.3, tokens_per_second=846, origin="probe"),
        complete(6, config(speculative_config=DRAFT, quantization=INT8, max_num_seqs=32), e2el=871, ttft=262, tpot=9.7,
                 tokens_per_second=921, acceptance=3.39),
        complete(7, config(speculative_config=DRAFT, quantization=INT8, max_num_batched_tokens=512), e2el=812, ttft=231,
                 tpot=9.8, tokens_per_second=908, acceptance=3.39),
        failed(8, config(kv_cache_memory_bytes=16 * 2**30)),
        complete(9, config(speculative_config=DRAFT, quantization=INT4), e2el=841, ttft=239, tpot=9.4,
                 tokens_per_second=979, acceptance=3.27),
        void(complete(10, config(quantization=INT8, max_num_seqs=16), e2el=1492, ttft=502, tpot=12.9,
                      tokens_per_second=704)),
    )  # fmt: skip


def comparison(metric: str, default: float, recommended: float, *, low: float, high: float) -> Comparison:
    return Comparison(
        metric=metric,
        default=estimate(default, num_samples=240),
        recommended=estimate(recommended, num_samples=240),
        improvement=bounded(default / recommended, low, high, 960),
    )


def verification(*, holds: bool = True) -> Verification:
    return Verification(
        workload_name="demo, later traffic",
        num_requests=240,
        comparisons=(
            comparison("p95_e2el_ms", 1602, 826, low=1.71, high=2.20),
            comparison("p95_ttft_ms", 421, 238, low=1.48, high=2.11),
            comparison("p95_tpot_ms", 18.6, 9.9, low=1.80, high=1.96),
        ),
        quality=quality_of(config(quantization=INT8)),
        slos=(
            SloOutcome(slo=SLOS[0], value=0.238, limit=0.3, violation=-0.207),
            SloOutcome(slo=SLOS[1], value=0.9921, limit=0.99, violation=-0.0021),
        ),
        holds=holds,
        notes=() if holds else ("p95 time to first token was worse on two of four runs",),
    )


def recommendation() -> Recommendation:
    return Recommendation(
        trial=7,
        feasible=True,
        reasons=(
            "Of 8 measured configs 2 meet every limit; trial 7 has the lowest p95 end-to-end latency.",
            "Weights are stored as int8 instead of bf16.",
            "Speculative decoding: a small draft model proposes 4 tokens ahead and the model checks them; 3.4 tokens "
            "come out of each step on this workload.",
            "Answers are complete 1.9x sooner: 812 ms instead of 1,574 ms at p95.",
        ),
        advice=(
            SloAdvice(
                slo="quality>=0.99",
                limit_needed="quality>=0.921",
                trial=9,
                text="With quality>=0.921 trial 9 would do: a million tokens cost 7% less.",
            ),
        ),
    )


def study(**changes: object) -> StudyResult:
    """A finished study: eleven trials, a recommendation that held on later traffic."""
    values: dict[str, object] = {
        "name": "demo-latency-20260203-100000",
        "created_at": "2026-02-03T10:05:12+00:00",
        "workload_name": "demo",
        "workload_fingerprint": "5f1c9d0a7b3e4c2d8f6a1b0c9e8d7f6a5b4c3d2e1f0a9b8c7d6e5f4a3b2c1d0e",
        "workload_file": "demo.parquet",
        "workload_summary": {
            "requests": 1240,
            "requests_per_second": 2.4,
            "tokens_per_request": 180.3,
            "heldout_requests": 420,
        },
        "objective": "latency",
        "slos": SLOS,
        "space_name": "bundled",
        "space_size": 2880,
        "seed": 0,
        "trials": trials(),
        "front": (0, 1, 2, 6, 7, 9),
        "recommendation": recommendation(),
        "verification": verification(),
        "environment": {
            "processor": "Example CPU @ 2.50GHz",
            "cores": "2",
            "memory_gib": "16",
            "system": "Linux 6.1",
            "python": "3.11.9",
            "fireoptimizer": "0.1.0",
            "torch": "2.8.0",
        },
        "duration_s": 300.4,
        "notes": ("verified on the last 35% of the workload's sessions, which the search did not see",),
    }
    return StudyResult.model_validate({**values, **changes})


def infeasible() -> StudyResult:
    """No trial meets a limit of 100 ms to the first token."""
    slos = ("ttft:p95<100ms", "quality>=0.99")
    tightened = tuple(
        trial.model_copy(
            update={
                "slos": (
                    SloOutcome(
                        slo=slos[0],
                        value=trial.metrics["p95_ttft_ms"] / 1000,
                        limit=0.1,
                        violation=trial.metrics["p95_ttft_ms"] / 100 - 1,
                    ),
                    *trial.slos[1:],
                )
            }
        )
        if trial.slos
        else trial
        for trial in trials()
    )
    advice = (
        SloAdvice(
            slo=slos[0],
            limit_needed="ttft:p95<232ms",
            trial=7,
            text="With ttft:p95<232ms trial 7 would do: p95 end-to-end latency 812 ms.",
        ),
    )
    nearest = Recommendation(
        trial=7,
        feasible=False,
        reasons=(
            "None of the 8 measured configs meets every limit; trial 7 comes nearest.",
            "It misses ttft:p95<100ms by 131.0%; no measured config meets that limit.",
        ),
        binding_slos=(slos[0],),
        advice=advice,
    )
    later = SloOutcome(slo=slos[0], value=0.238, limit=0.1, violation=1.38)
    checked = verification(holds=False)
    checked = checked.model_copy(update={"slos": (later, *checked.slos[1:])})
    return study(slos=slos, trials=tightened, recommendation=nearest, verification=checked)


def default_wins() -> StudyResult:
    best = Recommendation(
        trial=0,
        feasible=True,
        reasons=(
            "Of 1 measured configs 1 meet every limit; trial 0 has the lowest latency.",
            "It is the default config: nothing measured beats it beyond the noise.",
        ),
    )
    met = tuple(t.model_copy(update={"slos": ()}) for t in trials()[:2])
    return study(recommendation=best, verification=None, trials=met, front=(0, 1), slos=())


def single_trial() -> StudyResult:
    """Stopped by Ctrl-C after the default."""
    best = Recommendation(trial=0, feasible=True, reasons=("Only the default config was measured.",))
    first = trials()[0].model_copy(update={"slos": ()})
    return study(trials=(first,), front=(0,), recommendation=best, verification=None, interrupted=True, slos=())


def all_failed() -> StudyResult:
    nothing = tuple(failed(number, DEFAULT) for number in range(3))
    return study(trials=nothing, front=(), recommendation=None, verification=None, workload_summary={})


def bare() -> StudyResult:
    """Neither quality nor cost, a predicted trial, and a space without a size."""
    stripped = tuple(t.model_copy(update={"quality": None, "cost": None, "slos": ()}) for t in trials()[:4])
    predicted = stripped[3].model_copy(update={"provenance": Provenance.PREDICTED, "estimates": {}})
    best = Recommendation(trial=2, feasible=True, reasons=("Trial 2 has the lowest p95 end-to-end latency.",))
    return study(trials=(*stripped[:3], predicted), front=(2,), recommendation=best, verification=None, slos=(),
                 space_size=None, environment={}, notes=())  # fmt: skip


def not_held() -> StudyResult:
    """What the search found did not hold on later traffic."""
    level = comparison("p95_e2el_ms", 1602, 1590, low=0.94, high=1.08)
    checked = verification(holds=False).model_copy(update={"comparisons": (level,)})
    return study(verification=checked)


def empty() -> StudyResult:
    """Stopped by Ctrl-C before the first trial ended."""
    return study(trials=(), front=(), recommendation=None, verification=None, interrupted=True, duration_s=4.0)


def void_default() -> StudyResult:
    """Nothing is known of the default's times."""
    first, *others = trials()
    return study(trials=(void(first), *others))


def hostile() -> StudyResult:
    """Names and reasons that would be markup if a report forgot to escape them."""
    nasty = "<script>alert('x')</script> & \"quoted\" | pipe"
    last = refused(11, config(num_threads=3), nasty)
    return study(workload_name=nasty, notes=(nasty,), trials=(*trials(), last), environment={nasty: nasty})


CASES = {
    "finished": study,
    "infeasible": infeasible,
    "default wins": default_wins,
    "single trial": single_trial,
    "all failed": all_failed,
    "bare": bare,
    "hostile": hostile,
    "not held": not_held,
    "void default": void_default,
    "empty": empty,
}
