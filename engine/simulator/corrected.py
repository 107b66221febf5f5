"""`CorrectedOracle`: another oracle's step times, scaled and shifted by what was measured.

Does not know the other oracle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.simulator.oracle import Provenance, StepTimeOracle


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What kernel times leave out: seconds = computed + step_overhead_s + sequence_overhead_s * sequences.

    A step with prompt tokens computes for max(mixed_scale * predicted, mixed_floor_s): kernels side by side are slower
    than alone, and short ones wait for the host that launches them. Decode steps, which are replayed as graphs, compute
    as predicted.
    """

    mixed_scale: float = 1.0
    mixed_floor_s: float = 0.0
    step_overhead_s: float = 0.0
    sequence_overhead_s: float = 0.0
    fitted_on: str = "nothing"


class CorrectedOracle:
    """Steps without prompt tokens are corrected as decode steps, all others as mixed ones."""

    def __init__(self, oracle: StepTimeOracle, correction: Correction) -> None:
        self._step_s = oracle.step_s
        self._correction = correction
        self._base = oracle.provenance

    @property
    def provenance(self) -> Provenance:
        detail = f"{self._base.detail}, corrected by a fit on {self._correction.fitted_on}"
        return replace(self._base, detail=detail, median_error=None, total_error=None, num_held_out=0)

    def step_s(
        self,
        prefill_seqs: int,
        prefill_tokens: int,
        prefill_context: int,
        decode_seqs: int,
        decode_context: float,
        draft_tokens: float,
    ) -> float:
        """Seconds."""
        correction = self._correction
        seconds = self._step_s(prefill_seqs, prefill_tokens, prefill_context, decode_seqs, decode_context, draft_tokens)
        if prefill_tokens:
            seconds = max(correction.mixed_scale * seconds, correction.mixed_floor_s)
        overhead = correction.step_overhead_s + correction.sequence_overhead_s * (prefill_seqs + decode_seqs)
        return seconds + overhead
