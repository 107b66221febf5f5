"""A small made-up engine: what a config measures, exactly."""

from engine.config import EngineConfig
from optimizer.results import Cost, QualityScore, TrialResult, TrialState
from workloads.estimate import Estimate

LOSSES = {"bf16": 0.0, "int8": 0.002, "int4_g32": 0.008, "int4_g64": 0.012, "int4_g128": 0.02}


def answer(number: int, config: EngineConfig) -> TrialResult:
    latency, usd = _latency(config), 0.5 + 8 / config.max_num_seqs
    return TrialResult(
        number=number,
        config=config,
        state=TrialState.COMPLETE,
        metrics={"p95_e2el_ms": 1000 * latency},
        quality=_quality(1 - LOSSES[config.quantization.weights.removesuffix("_asym")], config.quality_class()),
        cost=_cost(usd * latency),
    )


def _latency(config: EngineConfig) -> float:
    latency = 0.8 if config.dtype == "float32" else 1.0
    latency *= 0.9 if config.quantization.weights != "bf16" else 1.0
    if config.speculative_config is not None:
        gain = 0.75 if config.speculative_config.method == "ngram" else 0.6
        length = config.speculative_config.num_speculative_tokens
        latency *= gain + 0.05 * abs((2 if length == "auto" else length) - 3)
    if config.num_threads is not None:
        latency *= 1.3
    return latency * (1.2 if config.max_num_seqs < 16 else 1.0)


def point(value: float) -> Estimate:
    return Estimate(value=value, low=value, high=value, num_samples=100)


def _quality(value: float, quality_class: str) -> QualityScore:
    return QualityScore(
        quality_class=quality_class,
        quality=point(value),
        top1_agreement=None,
        kl_nats=point(1 - value),
        checks_score=None,
        num_requests=100,
        num_tokens=4000,
    )


def _cost(usd: float) -> Cost:
    return Cost(
        usd_per_million_tokens=point(usd),
        usd_per_hour=0.1,
        replicas=1,
        utilisation=0.5,
        capacity_rps=point(1 / usd),
        capacity_basis="saturation",
        sku="local",
        sku_count=1,
        usd_per_sku_hour=0.1,
        price_as_of="2026",
        price_source="made up",
    )
