"""`SimulatedBackend`: configs on hardware that is not here; it says what fits, and how its server would run.

Does not launch anything: there is no HTTP server, and no measurement. Everything that comes of it is a prediction.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from engine.backend import FailureKind, Refusal
from engine.config import EngineConfig
from engine.memory import local_available_bytes
from engine.model_shape import ModelShape, ModelShapeError, load_model_shape
from engine.simulator.acceptance import AcceptanceProfile
from engine.simulator.corrected import CorrectedOracle, Correction
from engine.simulator.errors import SimulatorError
from engine.simulator.fit import kv_block_bytes, num_kv_blocks, sku_refusals
from engine.simulator.instance_split import split_of
from engine.simulator.model_names import simulated_shape
from engine.simulator.oracle import StepTimeOracle
from engine.simulator.settings import SchedulerSettings, settings_of
from engine.simulator.step_times import LOCAL, Calibration, Labelled, step_time_oracle
from search_spaces.errors import SearchSpaceError
from search_spaces.skus import Sku, find_sku

_FREE_DRAFTS = ("ngram", "suffix")  # drafting takes no time on the device; calibrated steps know of the others
_LOCAL_SEQUENCES = 64  # or max_num_seqs, at full length: what the bundled engine's cache holds at most


class Serving(NamedTuple):
    """A config in the simulator: its scheduler, and the time of its steps."""

    settings: SchedulerSettings
    oracle: StepTimeOracle


class SimulatedBackend:
    """One replica a config, on `tensor_parallel_size` devices of its SKU for each of its instances.

    Args:
        acceptance: measured chance of each draft token, by speculation method.
        corrections: of step times, by SKU.
    """

    name = "simulated"

    def __init__(
        self,
        skus: Mapping[str, Sku],
        *,
        calibration: Calibration | None = None,
        acceptance: Mapping[str, AcceptanceProfile] | None = None,
        corrections: Mapping[str, Correction] | None = None,
    ) -> None:
        self._skus, self._calibration, self._acceptance = skus, calibration, acceptance or {}
        self._corrections = corrections or {}

    def corrected_by(self, corrections: Mapping[str, Correction]) -> SimulatedBackend:
        """The same with these corrections in place of its own."""
        return SimulatedBackend(
            self._skus, calibration=self._calibration, acceptance=self._acceptance, corrections=corrections
        )

    def check(self, config: EngineConfig) -> list[Refusal]:
        """What does not fit the SKU or is not covered by any oracle, with the nearest that is."""
        try:
            shape, sku = simulated_shape(config.model), self._sku(config)
            if refusals := sku_refusals(config, shape, sku, _draft_shape(config)):
                return refusals
            self._serving(config, shape, sku)
        except (SearchSpaceError, SimulatorError, ModelShapeError) as error:
            return [Refusal(reason=str(error), kind=FailureKind.UNSUPPORTED)]
        return []

    def serving(self, config: EngineConfig) -> Serving:
        """Ask `check` first.

        Raises:
            SimulatorError: the config cannot be simulated.
        """
        return self._serving(config, simulated_shape(config.model), self._sku(config))

    def _serving(self, config: EngineConfig, shape: ModelShape, sku: Sku) -> Serving:
        _refuse_other_counts(config)
        if unknown := _not_simulated(config):
            raise SimulatorError(f"{unknown} is not simulated. Leave it out, or measure it on an engine")
        draft = _draft_shape(config)
        num_blocks = num_kv_blocks(config, shape, sku, draft)
        if sku.name == LOCAL and config.kv_cache_memory_bytes is None:
            longest = config.max_model_len or shape.max_position_embeddings
            num_blocks = min(num_blocks, max(_LOCAL_SEQUENCES, config.max_num_seqs) * -(-longest // config.block_size))
        split = split_of(config, sku, block_bytes=kv_block_bytes(config, shape, sku, draft))
        settings = settings_of(
            config,
            num_blocks=num_blocks,
            acceptance=self._accepted(config),
            async_scheduling=sku.name != LOCAL and config.speculative_config is None,  # as vLLM from 0.14 on
            split=split,
        )
        oracle = step_time_oracle(config, shape, sku, self._calibration)
        if sku.name in self._corrections:
            oracle = CorrectedOracle(oracle, self._corrections[sku.name])
        if sku.network is not None and split is not None:
            rate = f"{sku.network.gb_s:g} GB/s a device ({sku.network.source}, {sku.network.as_of})"
            oracle = Labelled(oracle, gap=f"KV moves at the network's nominal {rate}; routing requests takes no time")
        return Serving(settings, oracle)

    def _accepted(self, config: EngineConfig) -> AcceptanceProfile | None:
        """The profile of the config's drafts, cut to as many tokens as it drafts."""
        speculation = config.speculative_config
        if speculation is None:
            return None
        if speculation.method not in _FREE_DRAFTS and config.hardware.sku != LOCAL:
            raise SimulatorError(
                f"the time that {speculation.method} takes to draft is not simulated. "
                f"Use {' or '.join(_FREE_DRAFTS)}, or measure it on an engine"
            )
        profile = self._acceptance.get(speculation.method)
        if profile is None:
            return None  # `settings_of` says that it must be measured first
        wanted = speculation.num_speculative_tokens
        if speculation.tree_nodes != profile.tree_nodes:
            measured, asked = (
                f"a tree of {n}" if n else "a chain" for n in (profile.tree_nodes, speculation.tree_nodes)
            )
            raise SimulatorError(
                f"the acceptance profile of {speculation.method} is measured for {measured}, not for {asked}. "
                f"Set tree_nodes as it was measured"
            )
        if wanted == "auto" or wanted > profile.depth or (profile.tree_nodes and wanted != profile.depth):
            fewer = "" if profile.tree_nodes else " or fewer"  # what is kept of a tree depends on its depth
            raise SimulatorError(
                f"the acceptance profile of {speculation.method} is measured for {profile.depth} draft "
                f"tokens, not for {wanted}. Use num_speculative_tokens {profile.depth}{fewer}"
            )
        if profile.tree_nodes:
            return profile
        kept = profile.per_position[:wanted]
        return AcceptanceProfile(per_position=kept, drafted=profile.drafted_share * len(kept))

    def _sku(self, config: EngineConfig) -> Sku:
        sku = find_sku(self._skus, config.hardware.sku)
        if sku.name == LOCAL and sku.memory_gib is None:
            return sku.model_copy(update={"memory_gib": local_available_bytes() / 2**30})
        return sku


def _draft_shape(config: EngineConfig) -> ModelShape | None:
    """Of a draft model or an EAGLE head; None without one, and where its folder is not here to be counted."""
    speculation = config.speculative_config
    if speculation is None or speculation.method == "medusa" or not Path(speculation.model or "-").is_dir():
        return None
    return load_model_shape(Path(speculation.model or ""))


def _refuse_other_counts(config: EngineConfig) -> None:
    """Raises SimulatorError: `hardware.count` is not that of all instances' tensor parallel devices."""
    devices = config.tensor_parallel_size * config.num_instances
    if config.hardware.count == devices:
        return
    if config.disaggregation is None:
        raise SimulatorError(
            f"hardware.count is {config.hardware.count} and tensor_parallel_size {config.tensor_parallel_size}: "
            "the simulator knows no other parallel split. Give both the same number"
        )
    raise SimulatorError(
        f"hardware.count is {config.hardware.count}; {config.num_instances} instances of tensor_parallel_size "
        f"{config.tensor_parallel_size} take {devices}. Set hardware.count {devices}"
    )


def _not_simulated(config: EngineConfig) -> str | None:
    """The first field that would change times in a way no oracle knows."""
    parts = config.quantization
    unknown = {
        f"quantization.activations {parts.activations}": parts.activations not in ("bf16", "fp8"),
        f"quantization.kv_cache {parts.kv_cache}": parts.kv_cache not in ("bf16", "fp8"),
        f"quantization.communication {parts.communication}": parts.communication != "bf16",
        "quantization.overrides": bool(parts.overrides),
        f"pipeline_parallel_size {config.pipeline_parallel_size}": config.pipeline_parallel_size != 1,
        f"data_parallel_size {config.data_parallel_size}": config.data_parallel_size != 1,
        "lora_modules": bool(config.lora_modules),
        "engine_args": bool(config.engine_args),
    }
    return next((field for field, is_set in unknown.items() if is_set), None)
