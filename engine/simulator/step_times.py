"""Which oracle answers for a config on a SKU: calibrated, silicon, else the roofline; each says what it is.

Does not know schedulers or memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from engine.bundled.step_log import from_parquet
from engine.config import ConfigError, EngineConfig, load_engine_config
from engine.model_shape import ModelShape
from engine.simulator.calibrated import CalibratedOracle, calibrate
from engine.simulator.errors import SimulatorError
from engine.simulator.oracle import StepTimeOracle
from engine.simulator.roofline import RooflineOracle
from engine.simulator.silicon import SiliconOracle, SiliconTarget
from search_spaces.skus import Sku

LOCAL = "local"  # the SKU that calibrated steps stand for
_MAX_TOKENS, _MAX_SEQS = 8192, 512  # of a table; longer steps are scaled
_BF16 = "bfloat16"


_CHANGES_STEPS = (
    "quantization.weights",
    "quantization.activations",
    "quantization.kv_cache",
    "dtype",
    "tensor_parallel_size",
    "num_threads",
    "enforce_eager",
)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Step times measured on this machine, and the config that was measured where it is known."""

    oracle: CalibratedOracle
    config: EngineConfig | None

    def objection(self, config: EngineConfig) -> str:
        """Why these steps say nothing of a config; empty when they do."""
        if self.config is None:
            return ""
        for name in _CHANGES_STEPS:
            mine, theirs = config.flat()[name], self.config.flat()[name]
            if mine != theirs:
                return f"the calibrating steps were measured with {name} {theirs}, not {mine}"
        return ""


def read_calibration(path: Path) -> Calibration:
    """Fit to a trial's `steps.parquet`; its `config.yaml`, where it lies beside, says what the steps speak for.

    Raises:
        SimulatorError: not such a file, or too few steps.
    """
    try:
        records = from_parquet(path.read_bytes())
    except OSError as error:
        raise SimulatorError(f"cannot read {path}: {error.strerror}. Give a trial's steps.parquet") from None
    except ValueError as error:
        raise SimulatorError(f"{path} is {error}. Give a trial's steps.parquet") from None
    beside = path.parent / "config.yaml"
    try:
        config = load_engine_config(beside) if beside.exists() else None
    except ConfigError as error:
        raise SimulatorError(str(error)) from None
    return Calibration(oracle=calibrate(records, name=path.name), config=config)


def step_time_oracle(
    config: EngineConfig, shape: ModelShape, sku: Sku, calibration: Calibration | None = None
) -> StepTimeOracle:
    """Calibrated for `local`; elsewhere silicon where the package has the target, else the roofline and why.

    Raises:
        SimulatorError: nothing covers it; with what would.
    """
    if sku.name == LOCAL:
        return _calibrated(config, calibration)
    try:
        return _silicon(config, shape, sku)
    except SimulatorError as why:
        return _Labelled(RooflineOracle(config, shape, sku), gap=f"not silicon, because {_first_words(why)}")


class _Labelled:
    """An oracle with one gap more."""

    def __init__(self, oracle: StepTimeOracle, *, gap: str) -> None:
        self.step_s = oracle.step_s
        self.provenance = replace(oracle.provenance, gaps=(*oracle.provenance.gaps, gap))


def _first_words(error: SimulatorError) -> str:
    return str(error).split(". ")[0].split(" at /")[0]


def _calibrated(config: EngineConfig, calibration: Calibration | None) -> StepTimeOracle:
    if calibration is None:
        raise SimulatorError(
            "step times of this machine are not known. Give a measured trial's file with --steps "
            "runs/STUDY/trials/0000/steps.parquet, or simulate SKUs with --skus"
        )
    if objection := calibration.objection(config):
        raise SimulatorError(f"{objection}. Give the steps of a trial like it")
    return calibration.oracle


def _silicon(config: EngineConfig, shape: ModelShape, sku: Sku) -> StepTimeOracle:
    if sku.silicon is None:
        raise SimulatorError(f"there are no kernel measurements of {sku.name}")
    if config.quantization.weights != "bf16":
        raise SimulatorError(f"there are no kernel measurements of {config.quantization.weights} weights")
    dtype = shape.dtype if config.dtype == "auto" else config.dtype
    if dtype != _BF16:
        raise SimulatorError(f"there are no kernel measurements of {dtype}")
    return _tables(config.model, sku.silicon, config.tensor_parallel_size, shape.max_position_embeddings)


@lru_cache(maxsize=64)
def _tables(model: str, system: str, split: int, max_context: int) -> SiliconOracle:
    target = SiliconTarget(model=model, system=system, tensor_parallel_size=split)
    return SiliconOracle(target, max_tokens=_MAX_TOKENS, max_seqs=_MAX_SEQS, max_context=max_context)
