"""`Measurer`: the one seam between candidates and whatever tells about them; `Findings` is what it told.

Knows no member: an engine that is measured (`engine_measurer.py`), or a simulator (`simulated_measurer.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from engine.artifacts.checkpoint_record import CheckpointRecord
from engine.backend import Refusal
from engine.config import EngineConfig
from optimizer.client import Report, silent
from optimizer.results import Cost, Provenance, QualityScore
from optimizer.trial_folder import TrialFolder
from workloads.estimate import Estimate


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that one candidate told; the names of metrics are those of `TrialResult`."""

    metrics: Mapping[str, float]
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    quality: QualityScore | None = None
    cost: Cost | None = None
    void_reason: str = ""  # why the replay measured nothing but the client's lateness; then there are no metrics
    stop_reason: str = ""  # why it was rejected before it was measured; then there are `bounds` and no metrics
    bounds: Mapping[str, float] = field(default_factory=dict)  # see `TrialResult.bounds`
    basis: str = ""  # of a prediction: what it rests on
    weights: CheckpointRecord | None = None  # as `Server.weights`


class Measurer(Protocol):
    """Tells about candidates of one study, one at a time, on the same traffic."""

    @property
    def provenance(self) -> Provenance: ...

    @property
    def served_models(self) -> tuple[str, ...]:
        """Names that requests went to; none until a server was measured."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of all its findings should know."""
        ...

    def check(self, config: EngineConfig) -> list[Refusal]:
        """As `Backend.check`."""
        ...

    def prepare(self, default: EngineConfig, *, report: Report = silent) -> None:
        """Whatever must be there before the first candidate.

        Raises:
            EngineError: it cannot be made.
        """
        ...

    def find(self, config: EngineConfig, folder: TrialFolder, report: Report) -> Findings:
        """Tell about a config that `check` accepts; raw records and notes go to the folder.

        Raises:
            EngineError: the engine failed.
        """
        ...
