"""`Machine`: made-up step times of every config of the space.

Does not know traffic.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.config import EngineConfig
from engine.simulator.acceptance import AcceptanceProfile
from engine.simulator.oracle import Provenance, Source

BASE = EngineConfig(model="m")
NUM_BLOCKS = 6_000


class Machine:
    """Step times of every config of the space, its constants drawn from the seed."""

    def __init__(self, seed: int) -> None:
        draw = np.random.default_rng(seed).uniform
        self._weights = {"bf16": 1.0, "int8": draw(0.6, 1.1)} | {
            f"int4_g{g}_asym": draw(0.5, 1.3) for g in (32, 64, 128)
        }
        self._dtype = {"auto": 1.0, "float32": draw(0.9, 1.8)}
        self._token = {"auto": draw(4e-5, 1e-4), "float32": draw(8e-5, 2e-4)}
        self._fixed_s, self._one_thread, self._draft = draw(0.8e-3, 1.5e-3), draw(1.1, 1.8), draw(0.1, 0.3)
        self._acceptance = {"draft_model": draw(0.5, 0.85), "ngram": draw(0.2, 0.75), "suffix": draw(0.3, 0.8)}
        self._losses = {
            "bf16": 0.0,
            "int8": 0.002,
            "int4_g32_asym": 0.008,
            "int4_g64_asym": 0.012,
            "int4_g128_asym": 0.02,
        }

    def loss(self, config: EngineConfig) -> float:
        return self._losses[config.quantization.weights] + (0.0005 if config.dtype == "float32" else 0.0)

    def acceptance(self, config: EngineConfig) -> AcceptanceProfile | None:
        speculation = config.speculative_config
        if speculation is None:
            return None
        most = speculation.num_speculative_tokens
        return AcceptanceProfile(per_position=(self._acceptance[speculation.method],) * (4 if most == "auto" else most))

    def oracle(self, config: EngineConfig) -> _Steps:
        threads = 1.0 if config.num_threads is None else self._one_thread
        fixed = self._fixed_s * self._weights[config.quantization.weights] * self._dtype[config.dtype]
        drafting = config.speculative_config is not None and config.speculative_config.method == "draft_model"
        return _Steps(fixed * threads, self._token[config.dtype] * threads, self._draft * fixed if drafting else 0.0)


class _Steps(NamedTuple):
    """A step: fixed + tokens x token_s, and what drafting a token costs."""

    fixed_s: float
    token_s: float
    draft_s: float

    @property
    def provenance(self) -> Provenance:
        return Provenance(source=Source.CONSTANT, detail="made up")

    def step_s(
        self,
        prefill_seqs: int,  # noqa: ARG002
        prefill_tokens: int,
        prefill_context: int,  # noqa: ARG002
        decode_seqs: int,
        decode_context: float,  # noqa: ARG002
        draft_tokens: int,
    ) -> float:
        drafts = draft_tokens / decode_seqs * self.draft_s if decode_seqs else 0.0
        return self.fixed_s + (prefill_tokens + decode_seqs + draft_tokens) * self.token_s + drafts
