"""A machine made up at random: what every config of a space would measure on it, by queueing arithmetic.

Does not know search strategies. Interactions are those of real engines: number formats that win at small batches and
lose at large ones, speculation that pays until the machine is saturated, batch limits that queue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from engine.config import EngineConfig
from optimizer.results import Cost, QualityScore, TrialResult, TrialState
from optimizer.slo import Slo, evaluate_trial
from workloads.estimate import Estimate

OUTPUT_TOKENS = 120


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Seconds, dollars per million tokens, 1 - quality."""

    p95_s: float
    usd: float
    loss: float


class SyntheticMachine:
    """Its constants are drawn from the seed; `truth` is exact, `measure` adds noise of the config and seed."""

    def __init__(self, seed: int) -> None:
        draw = np.random.default_rng(seed).uniform
        self._seed = seed
        self._step_ms = {"auto": draw(0.9, 1.3), "float32": draw(0.55, 1.1)}
        self._per_sequence_ms = {"auto": draw(0.02, 0.05), "float32": draw(0.05, 0.15)}
        self._weights = {"bf16": 1.0, "int8": draw(0.7, 1.1)} | {f"int4_g{g}": draw(0.6, 1.3) for g in (32, 64, 128)}
        self._weights_per_sequence = {w: 1.0 if w == "bf16" else draw(0.8, 1.3) for w in self._weights}
        self._losses = {"bf16": 0.0, "int8": draw(0.0005, 0.004), "int4_g32": draw(0.004, 0.014)}
        self._losses["int4_g64"] = self._losses["int4_g32"] * draw(1.1, 1.6)
        self._losses["int4_g128"] = self._losses["int4_g64"] * draw(1.1, 1.6)
        self._float32_loss = draw(0.0, 0.001)
        self._acceptance = {"draft_model": draw(0.55, 0.85), "ngram": draw(0.25, 0.75), "suffix": draw(0.3, 0.8)}
        self._short_lookup = draw(0.85, 1.05)
        self._draft_cost, self._verify_cost = draw(0.1, 0.3), draw(0.01, 0.06)
        self._prefill_ms, self._prefix_saving = draw(20, 80), draw(0.05, 0.6)
        self._one_thread = (draw(0.9, 1.3), draw(1.2, 1.9))  # at batch 1, per sequence
        self._load = draw(0.3, 0.8)  # recorded rate / capacity of the default config
        self._rate = self._load * self._capacity(EngineConfig(model="m"))

    def truth(self, config: EngineConfig) -> Truth:
        capacity = self._capacity(config)
        busy = self._rate / capacity
        slots = config.max_num_seqs
        wait = min(busy, 1.0) ** math.sqrt(2 * (slots + 1)) / (slots * max(1 - busy, 0.03))  # M/M/c, Sakasegawa
        overload = 30 * max(0.0, busy - 0.97)  # the backlog of a window that the engine cannot follow
        concurrent = 1 + min(busy, 1.0) ** 2 * (slots - 1)
        service = self._prefill(config) + self._token_ms(config, concurrent) * OUTPUT_TOKENS
        weights = config.quantization.weights.removesuffix("_asym")
        loss = self._losses[weights] + (self._float32_loss if config.dtype == "float32" else 0.0)
        return Truth(p95_s=service * (1.3 + 3 * wait + overload) / 1000, usd=1.0 / capacity, loss=loss)

    def measure(self, number: int, config: EngineConfig, slos: tuple[Slo, ...]) -> TrialResult:
        """With 3% noise in latency and 2% in cost, always the same for one config."""
        truth = self.truth(config)
        rng = np.random.default_rng([self._seed, int(config.fingerprint(), 16)])
        latency, usd = truth.p95_s * math.exp(rng.normal(0, 0.03)), truth.usd * math.exp(rng.normal(0, 0.02))
        trial = TrialResult(
            number=number,
            config=config,
            state=TrialState.COMPLETE,
            metrics={"p95_e2el_ms": 1000 * latency},
            quality=_quality(1 - truth.loss, config.quality_class()),
            cost=_cost(usd),
        )
        return trial.model_copy(update={"slos": tuple(evaluate_trial(slo, trial) for slo in slos)})

    def _prefill(self, config: EngineConfig) -> float:
        chunks = 1 + 40 / config.max_num_batched_tokens
        saved = 1 - self._prefix_saving if config.enable_prefix_caching else 0.97
        return self._prefill_ms * chunks * saved * (1.4 if config.dtype == "float32" else 1.0)

    def _token_ms(self, config: EngineConfig, batch: float) -> float:
        """Milliseconds per output token of one sequence, `batch` sequences being decoded."""
        alone, each = (1.0, 1.0) if config.num_threads is None else self._one_thread
        weights = config.quantization.weights.removesuffix("_asym")
        fixed = self._step_ms[config.dtype] * self._weights[weights] * alone
        step = fixed + self._per_sequence_ms[config.dtype] * self._weights_per_sequence[weights] * each * batch
        step *= 1 + 0.00004 * config.max_num_batched_tokens * batch / 16  # prompts read between steps
        speculation = config.speculative_config
        if speculation is None:
            return step
        k, acceptance = speculation.num_speculative_tokens, self._acceptance[speculation.method]
        k = 3 if k == "auto" else k
        if speculation.prompt_lookup_max == 2:
            acceptance *= self._short_lookup
        tokens = (1 - acceptance ** (k + 1)) / (1 - acceptance)
        drafting = k * self._draft_cost * fixed if speculation.method == "draft_model" else 0.01 * k
        return (step * (1 + k * self._verify_cost * (1 + batch / 32)) + drafting) / tokens

    def _capacity(self, config: EngineConfig) -> float:
        """Requests per second at saturation."""
        batch = config.max_num_seqs
        per_request = self._token_ms(config, batch) * OUTPUT_TOKENS / batch + self._prefill(config) * 0.3
        return 1000 / per_request


def _estimate(value: float, spread: float = 0.0) -> Estimate:
    return Estimate(value=value, low=value * (1 - spread), high=value * (1 + spread), num_samples=100)


def _quality(value: float, quality_class: str) -> QualityScore:
    return QualityScore(
        quality_class=quality_class,
        quality=_estimate(value),
        top1_agreement=None,
        kl_nats=None,
        checks_score=None,
        num_requests=100,
        num_tokens=4000,
    )


def _cost(usd: float) -> Cost:
    return Cost(
        usd_per_million_tokens=_estimate(usd, 0.04),
        usd_per_hour=0.1,
        replicas=1,
        utilisation=0.5,
        capacity_rps=_estimate(1 / usd, 0.04),
        capacity_basis="saturation",
        sku="local",
        sku_count=1,
        usd_per_sku_hour=0.1,
        price_as_of="2026",
        price_source="made up",
    )
