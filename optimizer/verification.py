"""`verify`: default and recommended config once more, interleaved A B B A, on traffic the search has not seen.

Does not know how the recommended one was found.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engine.backend import Backend
from engine.config import EngineConfig
from optimizer.client import Report, silent
from optimizer.fidelity import TrialWindow
from optimizer.placement import Placement
from optimizer.quality.evaluate import QualityEvaluator
from optimizer.results import Deployment, Verification

if TYPE_CHECKING:
    from optimizer.slo import Slo


def verify(
    *,
    backend: Backend,
    default: EngineConfig,
    recommended: EngineConfig,
    window: TrialWindow,
    slos: tuple[Slo, ...],
    quality: QualityEvaluator | None,
    placement: Placement,
    directory: Path,
    report: Report = silent,
) -> Verification:
    """Both engines stay up where memory allows; only one is sent traffic at a time. Writes `<directory>/`.

    `quality` is an evaluator over the held-out workload (its own directory).

    Raises:
        EngineError: one of the two cannot run.
    """
    raise NotImplementedError


def verify_deployment(
    *,
    backend: Backend,
    deployment: Deployment,
    window: TrialWindow,
    slos: tuple[Slo, ...],
    quality: QualityEvaluator | None,
    placement: Placement,
    directory: Path,
    report: Report = silent,
) -> Verification:
    """Is what `best.yaml` promises still true: its config measured now, compared with its evidence.

    Raises:
        EngineError: the config cannot run.
    """
    raise NotImplementedError
