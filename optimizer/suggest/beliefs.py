"""What usually happens when a setting changes: the mean a surrogate starts from before it has measured anything.

Does not know this machine or workload: measurements overrule it. Effects are logarithms of (value / default's) and add
up; they are kept small where practice disagrees with itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from engine.config import EngineConfig
from optimizer.suggest.kernels import Floats
from search_spaces.parameter import Value


class Effect(NamedTuple):
    """On the logarithm of latency and of cost."""

    latency: float
    cost: float


EFFECTS: dict[tuple[str, Value], Effect] = {
    ("speculative_config.method", "draft_model"): Effect(-0.35, -0.10),
    ("speculative_config.method", "ngram"): Effect(-0.25, -0.05),
    ("speculative_config.method", "suffix"): Effect(-0.30, -0.05),
    ("quantization.weights", "int8"): Effect(-0.10, -0.05),
    ("quantization.weights", "int4_g128"): Effect(-0.10, -0.05),
    ("quantization.weights", "int4_g64"): Effect(-0.10, -0.05),
    ("quantization.weights", "int4_g32"): Effect(-0.05, -0.05),
    ("quantization.weights", "int4_g128_asym"): Effect(-0.10, -0.05),
    ("quantization.weights", "int4_g64_asym"): Effect(-0.10, -0.05),
    ("quantization.weights", "int4_g32_asym"): Effect(-0.05, -0.05),
    ("quantization.weights", "fp8"): Effect(-0.05, -0.05),
    ("quantization.activations", "int8"): Effect(-0.05, -0.05),
    ("quantization.activations", "fp8"): Effect(0.00, 0.00),
    ("quantization.kv_cache", "int8"): Effect(0.00, -0.02),
    ("quantization.kv_cache", "fp8"): Effect(0.00, -0.02),
    ("dtype", "float32"): Effect(0.00, 0.20),
    ("enable_prefix_caching", False): Effect(0.20, 0.20),
}
PER_HALVING: dict[str, Effect] = {
    "max_num_seqs": Effect(0.00, 0.05),
    "max_num_batched_tokens": Effect(0.00, 0.02),
    "num_threads": Effect(0.25, 0.30),
}


def expected_effect(config: EngineConfig, default: EngineConfig) -> Effect:
    """Of every difference from the default, added up."""
    mine, theirs = config.flat(), default.flat()
    changed = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
    effects = [_effect(name, mine, theirs) for name in changed]
    return Effect(sum(e.latency for e in effects), sum(e.cost for e in effects))


def _effect(name: str, mine: Mapping[str, Value], theirs: Mapping[str, Value]) -> Effect:
    new, old = mine.get(name), theirs.get(name)
    if name in PER_HALVING:
        halvings = _halvings(old, new)
        return Effect(*(halvings * part for part in PER_HALVING[name]))
    gained, lost = EFFECTS.get((name, new), Effect(0, 0)), EFFECTS.get((name, old), Effect(0, 0))
    return Effect(gained.latency - lost.latency, gained.cost - lost.cost)


def _halvings(old: Value, new: Value) -> float:
    """Of a number; from "all there is" (None) to a number counts as one."""
    if isinstance(old, int) and isinstance(new, int):
        return math.log2(old / new)
    return 1.0 if old is None else -1.0


def expected_effects(configs: Sequence[EngineConfig], default: EngineConfig) -> Floats:
    """(configs, 2)."""
    return np.array([expected_effect(config, default) for config in configs]).reshape(len(configs), 2)
