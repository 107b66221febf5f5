"""Trials made up for tests: numbers with a stated relative spread."""

from engine.backend import FailureKind
from engine.config import EngineConfig
from optimizer.results import Cost, QualityScore, SloOutcome, TrialResult, TrialState
from workloads.estimate import Estimate


def estimate(value: float, spread: float = 0.0) -> Estimate:
    return Estimate(value=value, low=value * (1 - spread), high=value * (1 + spread), num_samples=200)


def quality(value: float, *, low: float | None = None, quality_class: str = "class") -> QualityScore:
    interval = Estimate(value=value, low=value if low is None else low, high=min(1.0, value + 0.001), num_samples=100)
    return QualityScore(
        quality_class=quality_class,
        quality=interval,
        top1_agreement=None,
        kl_nats=estimate(0.01),
        checks_score=None,
        num_requests=100,
        num_tokens=4000,
    )


def cost(usd: float, spread: float = 0.0) -> Cost:
    return Cost(
        usd_per_million_tokens=estimate(usd, spread),
        usd_per_hour=0.1,
        replicas=1,
        utilisation=0.5,
        capacity_rps=estimate(1 / usd, spread),
        capacity_basis="saturation",
        sku="local",
        sku_count=1,
        usd_per_sku_hour=0.1,
        price_as_of="2026",
        price_source="test",
    )


def trial(
    number: int = 0,
    *,
    p95_s: float = 1.0,
    usd: float = 1.0,
    q: float = 1.0,
    q_low: float | None = None,
    spread: float = 0.02,
    config: EngineConfig | None = None,
    slos: tuple[SloOutcome, ...] = (),
    objective: float | None = None,
    metrics: dict[str, float] | None = None,
) -> TrialResult:
    config = config or EngineConfig(model="m", seed=number)
    return TrialResult(
        number=number,
        config=config,
        state=TrialState.COMPLETE,
        metrics={"p95_e2el_ms": 1000 * p95_s} | (metrics or {}),
        estimates={"p95_e2el_ms": estimate(1000 * p95_s, spread)},
        quality=quality(q, low=q_low, quality_class=config.quality_class()),
        cost=cost(usd, spread),
        slos=slos,
        objective=p95_s if objective is None else objective,
    )


def stopped(
    number: int, *, bounds: dict[str, float], config: EngineConfig | None = None, q: float | None = None
) -> TrialResult:
    config = config or EngineConfig(model="m", seed=number)
    return TrialResult(
        number=number,
        config=config,
        state=TrialState.STOPPED,
        reason="dominated by trial 0",
        bounds=bounds,
        quality=None if q is None else quality(q, quality_class=config.quality_class()),
    )


def failed(number: int, *, config: EngineConfig | None = None, state: TrialState = TrialState.FAILED) -> TrialResult:
    kind = FailureKind.REFUSED if state is TrialState.REFUSED else FailureKind.DIED
    config = config or EngineConfig(model="m", seed=number)
    return TrialResult(number=number, config=config, state=state, failure=kind, reason="the engine died")
