"""`QualityEvaluator`: the quality of each quality class, evaluated once and kept on disk.

Does not launch engines: it is handed a server that runs the config.
"""

from __future__ import annotations

from pathlib import Path

from engine.backend import Server
from engine.config import EngineConfig, Quantization
from optimizer.measurement import Report, silent
from optimizer.placement import Placement
from optimizer.results import QualityScore
from workloads.workload import Workload

DEFAULT_FLOOR = 0.99


def reference_config(default: EngineConfig) -> EngineConfig:
    """The default config, unquantized and without speculation: what quality is relative to."""
    return default.model_copy(update={"quantization": Quantization(), "speculative_config": None})


class QualityEvaluator:
    """Scores quality classes against one reference on one set of requests.

    Args:
        directory: `<study>/quality`; holds the reference and one JSON file a class, so that a resumed study reuses them.
        workload: where the requests are drawn from; all of them may be used.
        floor: decides how many requests are enough; None: the first look is the last.
    """

    def __init__(
        self,
        *,
        directory: Path,
        workload: Workload,
        reference_class: str,
        num_requests: int,
        num_requests_max: int,
        floor: float | None = DEFAULT_FLOOR,
        placement: Placement,
        seed: int = 0,
    ) -> None:
        raise NotImplementedError

    @property
    def has_reference(self) -> bool:
        """Whether the reference's responses are known, from this run or an earlier one."""
        raise NotImplementedError

    def known(self, quality_class: str) -> QualityScore | None:
        """The score of a class evaluated before, else None."""
        raise NotImplementedError

    def score(self, server: Server, config: EngineConfig, *, report: Report = silent) -> QualityScore:
        """The class's score; the reference class makes the reference's responses and is 1.0 by definition.

        Raises:
            OptimizerError: another class before the reference (see `Evaluator.prepare`).
            EngineError: the engine died or hung.
        """
        raise NotImplementedError
