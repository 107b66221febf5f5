"""`RooflineOracle`: step times from a SKU's data sheet, for what has no measurements.

Does not know kernels: a step lasts as long as its arithmetic or its memory traffic, whichever is longer, plus what
tensor parallelism sends. `Derates` says how much of the data sheet is reached; the defaults are fitted to silicon
tables (see `tests/benchmarks/roofline_fidelity.py`, which also measures the error).
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import EngineConfig
from engine.memory import dtype_bytes, kv_bytes_per_token, weight_bytes
from engine.model_shape import ModelShape
from engine.simulator.errors import SimulatorError
from engine.simulator.oracle import Provenance, Source
from search_spaces.skus import Sku


@dataclass(frozen=True, kw_only=True)
class Derates:
    """Reached shares of the data sheet, and the time a layer takes beyond them."""

    arithmetic: float = 1.0
    bandwidth: float = 1.0
    link: float = 1.0
    layer_overhead_s: float = 0.0
    median_error: float | None = None  # of step times, where somebody compared them
    num_held_out: int = 0


FITTED = Derates(  # to the silicon tables of the H100, three dense models; the error is that on four other systems
    arithmetic=0.69,
    bandwidth=0.90,
    link=0.45,
    layer_overhead_s=54e-6,
    median_error=0.102,
    num_held_out=792,
)


class RooflineOracle:
    """A config's steps on a SKU.

    Raises:
        SimulatorError: the SKU's row lacks a figure that is needed.
    """

    def __init__(self, config: EngineConfig, shape: ModelShape, sku: Sku, derates: Derates = FITTED) -> None:
        split = config.tensor_parallel_size
        missing = [name for name in ("bandwidth_tb_s", "bf16_tflops") if getattr(sku, name) is None]
        if split > 1 and sku.link_gb_s is None:
            missing.append("link_gb_s")
        if missing:
            raise SimulatorError(
                f"the catalogue's row of {sku.name} lacks {' and '.join(missing)}, which a roofline of "
                f"{split} device{'s' * (split > 1)} needs. Add it in a private catalogue file"
            )
        assert sku.bandwidth_tb_s is not None
        assert sku.bf16_tflops is not None
        flops = split * sku.bf16_tflops * 1e12 * derates.arithmetic
        bandwidth = split * sku.bandwidth_tb_s * 1e12 * derates.bandwidth
        number = dtype_bytes(shape, config.dtype)
        head = shape.vocab_size * shape.hidden_size
        tables = 1 if shape.tie_word_embeddings else 2
        weights = weight_bytes(shape, weights=config.quantization.weights, dtype=config.dtype)
        read = weights - (tables - 1) * head * number  # the embedding is looked up, not read
        self._weights_s = read / bandwidth
        self._token_s = 2 * shape.num_linear_parameters / flops
        self._logits_s = 2 * head / flops
        kv_bytes = kv_bytes_per_token(shape, dtype=config.dtype, kv_cache=config.quantization.kv_cache)
        self._context_s = kv_bytes / bandwidth
        self._pair_s = 4 * shape.num_hidden_layers * shape.query_size / flops
        self._overhead_s = derates.layer_overhead_s * shape.num_hidden_layers
        self._link_s = 0.0
        if split > 1:
            assert sku.link_gb_s is not None
            sent = 2 * (split - 1) / split * 2 * shape.num_hidden_layers * shape.hidden_size * number
            self._link_s = sent / (sku.link_gb_s * 1e9 * derates.link)
        gaps = []
        if derates.median_error is not None:
            gaps.append("compared with silicon tables of other systems, not with steps of this one")
        if config.quantization.activations != "bf16":
            gaps.append(f"{config.quantization.activations} arithmetic is taken to be as fast as bf16's")
        self.provenance = Provenance(
            source=Source.ROOFLINE,
            detail=f"data sheet of {sku.name} ({sku.as_of}): {derates.arithmetic:.0%} of its arithmetic, "
            f"{derates.bandwidth:.0%} of its bandwidth",
            median_error=derates.median_error,
            num_held_out=derates.num_held_out,
            gaps=tuple(gaps),
        )

    def step_s(
        self,
        prefill_seqs: int,
        prefill_tokens: int,
        prefill_context: int,
        decode_seqs: int,
        decode_context: float,
        draft_tokens: float,
    ) -> float:
        """Seconds: max(arithmetic, weights read) + attention of prompts + KV read + what is sent + overhead."""
        tokens = prefill_tokens + decode_seqs + draft_tokens
        arithmetic = tokens * self._token_s + (prefill_seqs + decode_seqs + draft_tokens) * self._logits_s
        seconds = max(arithmetic, self._weights_s) + tokens * self._link_s + self._overhead_s
        if prefill_tokens:
            seconds += prefill_tokens * (prefill_context + prefill_tokens / 2) / prefill_seqs * self._pair_s
        return seconds + decode_context * self._context_s
