"""`StepTimeOracle`: how long one engine step takes; and where such a figure comes from.

Knows no member of the family (roofline, calibrated, silicon).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Source(StrEnum):
    """What a step time rests on."""

    SILICON = "silicon"  # kernels measured on that hardware by others
    ROOFLINE = "roofline"  # data-sheet bandwidth and arithmetic
    CALIBRATED = "calibrated"  # fitted to steps measured here
    CONSTANT = "constant"  # given


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where predictions come from, and how far off they are known to be.

    `median_error` is the median |predicted / measured - 1| of step times on `num_held_out` steps that the fit did not
    see; None where nobody has measured it.
    """

    source: Source
    detail: str
    median_error: float | None = None
    total_error: float | None = None  # Σ predicted / Σ measured - 1 over the same steps: what a long run sums up to
    num_held_out: int = 0
    gaps: tuple[str, ...] = ()  # what the figures leave out or stand in for

    def sentence(self) -> str:
        """For people."""
        known = "error not known"
        if self.median_error is not None:
            total = "" if self.total_error is None else f", {self.total_error:+.1%} in total,"
            known = f"median step error {self.median_error:.1%}{total} on {self.num_held_out} held-out steps"
        return "; ".join((f"{self.source}: {self.detail} ({known})", *self.gaps))


class StepTimeOracle(Protocol):
    """Seconds of a step by its composition."""

    @property
    def provenance(self) -> Provenance: ...

    def step_s(
        self,
        prefill_seqs: int,
        prefill_tokens: int,
        prefill_context: int,
        decode_seqs: int,
        decode_context: float,
        draft_tokens: float,
    ) -> float:
        """Duration of a step; context tokens are those in the cache before it, summed over sequences."""
        ...


@dataclass(frozen=True, kw_only=True)
class ConstantOracle:
    """Every step takes as long: the server of queueing theory."""

    seconds: float

    @property
    def provenance(self) -> Provenance:
        return Provenance(source=Source.CONSTANT, detail=f"{self.seconds:g} s a step")

    def step_s(self, *composition: float) -> float:  # noqa: ARG002
        return self.seconds
