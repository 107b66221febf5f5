"""`Evaluator`: one candidate from config to `TrialResult`: check, launch, measure, quality, capacity, price, write.

Does not choose candidates and does not compare them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from engine.backend import Backend
from engine.config import EngineConfig
from optimizer.client import Report, silent
from optimizer.cost import RecordedLoad
from optimizer.fidelity import Fidelity, TrialWindow
from optimizer.placement import Placement
from optimizer.quality.evaluate import QualityEvaluator
from optimizer.results import TrialResult

if TYPE_CHECKING:
    from optimizer.objective import Objective
    from optimizer.slo import Slo
    from search_spaces.skus import Sku


class Evaluator:
    """Evaluates candidates of one study, one at a time, on the same window."""

    def __init__(
        self,
        *,
        backend: Backend,
        study_dir: Path,
        window: TrialWindow,
        fidelity: Fidelity,
        load: RecordedLoad,
        quality: QualityEvaluator | None,
        objective: Objective,
        slos: tuple[Slo, ...],
        skus: Mapping[str, Sku],
        placement: Placement,
    ) -> None:
        raise NotImplementedError

    def prepare(self, default: EngineConfig, *, report: Report = silent) -> None:
        """Make the quality reference where trial 0 will not: when the default config is itself quantized.

        Raises:
            EngineError: the reference config cannot run.
        """
        raise NotImplementedError

    def evaluate(self, number: int, config: EngineConfig, *, origin: str, report: Report = silent) -> TrialResult:
        """Measure one candidate and write `trials/NNNN/`; engine failures are results, never exceptions."""
        raise NotImplementedError
