"""An `EngineConfig` as vLLM understands it: `vllm serve` options, environment variables, or why there are none.

Does not know which options an installed vLLM has: that is `engine/vllm_server/known_options.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.config import EngineArgument, EngineConfig, Quantization, SpeculativeConfig

GIB = 2**30
_KV_CACHE_DTYPES = {"bf16": None, "fp8": "fp8", "int8": "int8_per_token_head"}
_DEFAULTS = EngineConfig(model="")


def vllm_obstacles(config: EngineConfig) -> list[str]:
    """Why no `vllm serve` option expresses this config whatever its checkpoint; empty when they do."""
    parts, speculation = config.quantization, config.speculative_config
    obstacles = []
    if speculation is not None and speculation.num_speculative_tokens == "auto":
        obstacles.append(
            "The number of speculative tokens follows the load in fopt's own engine (auto); vLLM takes a fixed number."
        )
    if speculation is not None and speculation.tree_nodes is not None:
        obstacles.append(
            "vLLM verifies chains of Medusa heads' guesses, not trees: leave speculative_config.tree_nodes out."
        )
    if parts.weights == "bf16" and parts.activations != "bf16":
        obstacles.append(f"vLLM has no {parts.activations} activations beside unquantized weights.")
    if config.disaggregation is not None:
        obstacles.append(
            "disaggregation: one `vllm serve` is one instance, and prefill and decode apart take several behind a "
            "router. Leave it out, or predict it with --engine simulated."
        )
    if parts.communication != "bf16":
        obstacles.append(f"vLLM has no {parts.communication} communication between the ranks of a tensor split.")
    return obstacles


def needs_checkpoint(quantization: Quantization, *, on_cpu: bool = False) -> bool:
    """Whether vLLM needs weights that are already quantized; FP8 it makes while loading, though not on CPUs."""
    if quantization.weights == "bf16" and not quantization.overrides:
        return False
    return on_cpu or not _is_fp8_at_load(quantization)


def _is_fp8_at_load(quantization: Quantization) -> bool:
    return quantization.weights == quantization.activations == "fp8" and not quantization.overrides


def vllm_options(config: EngineConfig, *, checkpoint: Path | None = None) -> dict[str, Any]:
    """Long option names without dashes in front; no nulls, since vLLM would read the word None.

    Args:
        checkpoint: a folder of quantized weights to load in place of `config.model`.
    """
    options = {
        "model": str(checkpoint or config.model),
        "dtype": config.dtype,
        "quantization": "fp8" if checkpoint is None and _is_fp8_at_load(config.quantization) else None,
        "kv-cache-dtype": _KV_CACHE_DTYPES[config.quantization.kv_cache],
        "tensor-parallel-size": config.tensor_parallel_size,
        "pipeline-parallel-size": _unless_default(config, "pipeline_parallel_size"),
        "data-parallel-size": _unless_default(config, "data_parallel_size"),
        "distributed-executor-backend": config.distributed_executor_backend,
        "max-model-len": config.max_model_len,
        "max-num-seqs": config.max_num_seqs,
        "max-num-batched-tokens": config.max_num_batched_tokens,
        **_switch("enable-prefix-caching", config.enable_prefix_caching),
        **_switch("enable-chunked-prefill", config.enable_chunked_prefill),
        "block-size": _unless_default(config, "block_size") if config.engine != "bundled" else None,
        "kv-cache-memory-bytes": config.kv_cache_memory_bytes,
        "gpu-memory-utilization": config.gpu_memory_utilization,
        "enforce-eager": True if config.enforce_eager else None,
        "seed": config.seed,
        "speculative-config": _speculation(config.speculative_config),
        **_adapters(config),
        **_others(config.engine_args),
    }
    return {name: value for name, value in options.items() if value is not None}


def cpu_variables(config: EngineConfig, cores: Sequence[int] | None, *, kv_cache_gib: int) -> dict[str, str]:
    """The environment variables of vLLM's CPU build that stand for this config.

    Args:
        cores: that the engine may use; None: vLLM binds no threads unless `num_threads` asks for so many.
        kv_cache_gib: of KV cache where the config does not say; vLLM would take nearly all memory.
    """
    variables = {} if config.kv_cache_memory_bytes is not None else {"VLLM_CPU_KVCACHE_SPACE": str(kv_cache_gib)}
    bound = thread_binding(config, cores)
    return variables | ({"VLLM_CPU_OMP_THREADS_BIND": bound} if bound else {})


def num_ranks(config: EngineConfig) -> int:
    """Processes that hold a part of the model, each on a device of its own: tensor x pipeline x data parallel."""
    options = vllm_options(config)
    sizes = [options.get(f"{kind}-parallel-size", 1) for kind in ("tensor", "pipeline", "data")]
    return math.prod(size for size in sizes if isinstance(size, int))  # text in engine_args is left to vLLM


def thread_binding(config: EngineConfig, cores: Sequence[int] | None) -> str | None:
    """Core numbers of each rank, e.g. `0-3|4-7` or `1,3`; None: vLLM decides.

    A rank gets `num_threads` cores, or its equal share of all; there must be one for each rank.
    """
    ranks = num_ranks(config)
    if cores is None:
        if config.num_threads is None and ranks == 1:
            return None
        cores = range(ranks * (config.num_threads or 1))
    share = min(config.num_threads or len(cores), max(1, len(cores) // ranks))
    return "|".join(_core_list(cores[rank * share : (rank + 1) * share]) for rank in range(ranks))


def _core_list(cores: Sequence[int]) -> str:
    is_range = len(cores) > 1 and list(cores) == list(range(cores[0], cores[-1] + 1))
    return f"{cores[0]}-{cores[-1]}" if is_range else ",".join(map(str, cores))


def _unless_default(config: EngineConfig, field: str) -> Any:
    """None at our default: vLLM's own default is the same or fits the device better (`block_size` on CPUs: 128)."""
    value = getattr(config, field)
    return None if value == getattr(_DEFAULTS, field) else value


def _switch(name: str, is_on: bool) -> dict[str, bool]:
    """Off is written `no-<name>: true`: vLLM (0.32.0) drops `<name>: false` of a config file without a word."""
    return {name: True} if is_on else {f"no-{name}": True}


def _speculation(speculation: SpeculativeConfig | None) -> dict[str, Any] | None:
    """Members keep their underscores: vLLM reads them as JSON, not as options."""
    return None if speculation is None else speculation.model_dump(mode="json")


def _adapters(config: EngineConfig) -> dict[str, Any]:
    if not config.lora_modules:
        return {}
    return {
        "enable-lora": True,
        "lora-modules": [f"{name}={folder}" for name, folder in config.lora_modules.items()],
        "max-loras": config.max_loras,
        "max-lora-rank": config.max_lora_rank,
    }


def _others(arguments: Mapping[str, EngineArgument]) -> dict[str, Any]:
    """`engine_args`, which win over the fields."""
    options: dict[str, Any] = {}
    for argument, value in arguments.items():
        name = argument.lstrip("-").replace("_", "-")
        options |= _switch(name, value) if isinstance(value, bool) else {name: value}
    return options
