"""Which oracle answers for a config on a SKU: calibrated, silicon, else the roofline; each says what it is.

Does not know schedulers or memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from engine.bundled.step_log import from_parquet
from engine.config import ConfigError, EngineConfig, load_engine_config
from engine.model_shape import ModelShape
from engine.simulator.calibrated import CalibratedOracle, Calibrator, MeasuredSteps
from engine.simulator.errors import SimulatorError
from engine.simulator.oracle import StepTimeOracle
from engine.simulator.roofline import RooflineOracle
from engine.simulator.silicon import SiliconOracle, SiliconTarget
from search_spaces.skus import Sku

LOCAL = "local"  # the SKU that calibrated steps stand for
_MAX_TOKENS, _MAX_SEQS = 8192, 512  # of a table; longer steps are scaled
_BF16 = "bfloat16"
# The package's names of matrix products, by weights and activations; its others are measured on no system for vLLM, or
# are formats that configs do not have. nvfp4 quantizes activations too, on GPUs that compute in it.
_GEMM_MODES: Mapping[tuple[str, str], str | None] = {
    ("bf16", "bf16"): None,
    ("fp8", "fp8"): "fp8",
    ("nvfp4", "bf16"): "nvfp4",
}


class Calibration:
    """Step times measured on this machine, and the configs that were measured where they are known.

    Raises:
        SimulatorError: trials that cannot be fitted together, or too few steps.
    """

    def __init__(self, trials: Sequence[tuple[MeasuredSteps, EngineConfig | None]]) -> None:
        self._config = trials[0][1]
        for steps, config in trials:
            if objection := self._difference(config):
                raise SimulatorError(f"{steps.name}: {objection}. Give trials that share it")
        self._calibrator = Calibrator([steps for steps, _ in trials])

    def objection(self, config: EngineConfig) -> str:
        """Why these steps say nothing of a config; empty when they do."""
        if self._config is None:
            return ""
        if difference := self._difference(config):
            return difference
        known = self._calibrator.number_formats
        if number_format(config) not in known:
            measured = " and in ".join(known)
            return f"the calibrating steps were measured in {measured}, not in {number_format(config)}"
        if drafter(config) and drafter(config) not in self._calibrator.drafters:
            return f"no calibrating steps were measured with {drafter(config)} speculation"
        return ""

    def oracle(self, config: EngineConfig) -> CalibratedOracle:
        """Ask `objection` first."""
        if self._config is None:
            return self._calibrator.oracle(*self._calibrator.number_formats[:1], *self._calibrator.drafters[:1])
        return self._calibrator.oracle(number_format(config), drafter(config))

    def _difference(self, config: EngineConfig | None) -> str:
        """What the costs depend on besides formats and drafters."""
        if config is None or self._config is None:
            return "" if config is self._config else "its config.yaml is missing beside some trials"
        for name in ("tensor_parallel_size", "num_threads", "enforce_eager"):
            mine, theirs = config.flat()[name], self._config.flat()[name]
            if mine != theirs:
                return f"the calibrating steps were measured with {name} {theirs}, not {mine}"
        return ""


def number_format(config: EngineConfig) -> str:
    """What the costs of a config's pass depend on."""
    parts = config.quantization
    words = [parts.weights if config.dtype == "auto" else f"{parts.weights} {config.dtype}"]
    others = {"activations": parts.activations, "KV cache": parts.kv_cache}
    return ", ".join(words + [f"{form} {name}" for name, form in others.items() if form != "bf16"])


def drafter(config: EngineConfig) -> str:
    """What the costs of a config's drafting depend on; empty without speculation."""
    return "" if config.speculative_config is None else config.speculative_config.method


def read_calibration(*paths: Path) -> Calibration:
    """Fit to trials' `steps.parquet`; the `config.yaml` beside each, where it is, says what the steps speak for.

    Raises:
        SimulatorError: not such a file, too few steps, or trials that cannot be fitted together.
    """
    return Calibration([read_trial(path) for path in paths])


def read_trial(path: Path) -> tuple[MeasuredSteps, EngineConfig | None]:
    """A trial's `steps.parquet`, and the `config.yaml` beside it where it is.

    Raises:
        SimulatorError: not such a file.
    """
    try:
        records = from_parquet(path.read_bytes())
    except OSError as error:
        raise SimulatorError(f"cannot read {path}: {error.strerror}. Give a trial's steps.parquet") from None
    except ValueError as error:
        raise SimulatorError(f"{path} is {error}. Give a trial's steps.parquet") from None
    config, name = config_beside(path), f"{path.parent.name}/{path.name}"
    if config is None:
        drafts = any(record.num_draft_tokens for record in records)
        return MeasuredSteps(records=records, name=name, drafter="drafts" if drafts else ""), None
    steps = MeasuredSteps(records=records, name=name, number_format=number_format(config), drafter=drafter(config))
    return steps, config


def config_beside(path: Path) -> EngineConfig | None:
    """What a trial's file was measured with.

    Raises:
        SimulatorError: a `config.yaml` that cannot be read.
    """
    beside = path.parent / "config.yaml"
    try:
        return load_engine_config(beside) if beside.exists() else None
    except ConfigError as error:
        raise SimulatorError(str(error)) from None


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
        return Labelled(RooflineOracle(config, shape, sku), gap=f"not silicon, because {_first_words(why)}")


class Labelled:
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
    oracle = calibration.oracle(config)
    outside = oracle.outside(max_num_seqs=config.max_num_seqs, max_num_batched_tokens=config.max_num_batched_tokens)
    return Labelled(oracle, gap=outside) if outside else oracle


def _silicon(config: EngineConfig, shape: ModelShape, sku: Sku) -> StepTimeOracle:
    if sku.silicon is None:
        raise SimulatorError(f"there are no kernel measurements of {sku.name}")
    parts = config.quantization
    if (parts.weights, parts.activations) not in _GEMM_MODES:
        what = f"{parts.weights} weights" + f" beside {parts.activations} activations" * (parts.weights == "fp8")
        raise SimulatorError(f"there are no kernel measurements of {what}")
    dtype = shape.dtype if config.dtype == "auto" else config.dtype
    if dtype != _BF16:
        raise SimulatorError(f"there are no kernel measurements of {dtype}")
    target = SiliconTarget(
        model=config.model,
        system=sku.silicon,
        tensor_parallel_size=config.tensor_parallel_size,
        gemm_quant_mode=_GEMM_MODES[parts.weights, parts.activations],
        kv_cache_quant_mode=None if parts.kv_cache == "bf16" else parts.kv_cache,
    )
    return _tables(target, shape.max_position_embeddings)


@lru_cache(maxsize=64)
def _tables(target: SiliconTarget, max_context: int) -> SiliconOracle:
    return SiliconOracle(target, max_tokens=_MAX_TOKENS, max_seqs=_MAX_SEQS, max_context=max_context)
