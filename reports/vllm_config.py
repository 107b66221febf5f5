"""`best.vllm.yaml`: the same config as `vllm serve --config` reads it, or a comment that says why vLLM cannot.

Does not know how vLLM runs it; knows its long option names only.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import yaml

from engine.config import EngineConfig, SpeculativeConfig
from reports.whole_file import write_whole

BEST_VLLM = "best.vllm.yaml"
_WIDTH = 108
_OTHERS = {
    "endpoint": "A running server was measured as it is. fopt does not know its settings, so this file holds none.",
    "command": (
        "The recommended configuration is of another server, started by its own command; its flags are not vLLM's, so "
        "this file holds no settings. Serve it with: fopt serve best.yaml"
    ),
}
_KV_CACHE_DTYPES = {"bf16": None, "int8": "int8_per_token_head", "fp8": "fp8"}


def write_vllm(config: EngineConfig, directory: Path) -> Path:
    """Write `best.vllm.yaml`: comments alone when vLLM cannot express the config; vLLM does not start from those."""
    if config.engine in _OTHERS:
        return write_whole(directory / BEST_VLLM, _as_comment([_OTHERS[config.engine]]))
    obstacles = vllm_obstacles(config)
    text = _refusal(obstacles) if obstacles else _comment(config) + _to_yaml(vllm_options(config))
    return write_whole(directory / BEST_VLLM, text)


def vllm_obstacles(config: EngineConfig) -> list[str]:
    """Why no `vllm serve` option expresses this config; empty when they do."""
    parts = config.quantization
    obstacles = []
    formats = list(dict.fromkeys(form for form in (parts.weights, *parts.overrides.values()) if form != "bf16"))
    if formats:
        obstacles.append(
            f"Weights in {' and '.join(formats)} are made by fopt's own engine while it loads an unquantized "
            "checkpoint. vLLM has no option for that: it needs a checkpoint whose weights are already quantized, and "
            "fopt does not write such checkpoints yet."
        )
    if config.speculative_config is not None and config.speculative_config.num_speculative_tokens == "auto":
        obstacles.append(
            "The number of speculative tokens follows the load in fopt's own engine (auto); vLLM takes a fixed number."
        )
    return obstacles


def vllm_options(config: EngineConfig) -> dict[str, Any]:
    """Long option names without dashes in front; no nulls, since vLLM would read the word None."""
    options = {
        "model": config.model,
        "dtype": config.dtype,
        "tensor-parallel-size": config.tensor_parallel_size,
        "max-model-len": config.max_model_len,
        "max-num-seqs": config.max_num_seqs,
        "max-num-batched-tokens": config.max_num_batched_tokens,
        **_switch("enable-prefix-caching", config.enable_prefix_caching),
        **_switch("enable-chunked-prefill", config.enable_chunked_prefill),
        "block-size": config.block_size if config.engine != "bundled" else None,
        "kv-cache-memory-bytes": config.kv_cache_memory_bytes,
        "kv-cache-dtype": _KV_CACHE_DTYPES[config.quantization.kv_cache],
        "enforce-eager": True if config.enforce_eager else None,
        "seed": config.seed,
        "speculative-config": _speculation(config.speculative_config),
    }
    return {name: value for name, value in options.items() if value is not None}


def _switch(name: str, is_on: bool) -> dict[str, bool]:
    """Off is written `no-<name>: true`: vLLM (0.32.0) drops `<name>: false` of a config file without a word."""
    return {name: True} if is_on else {f"no-{name}": True}


def _speculation(speculation: SpeculativeConfig | None) -> dict[str, Any] | None:
    """Members keep their underscores: vLLM reads them as JSON, not as options."""
    return None if speculation is None else speculation.model_dump(mode="json")


def _to_yaml(options: dict[str, Any]) -> str:
    return yaml.safe_dump(options, sort_keys=False, width=120)


def _comment(config: EngineConfig) -> str:
    notes = ["The recommended configuration for vLLM. Start it with: vllm serve --config best.vllm.yaml"]
    if config.engine == "bundled":
        notes.append(
            "It was measured on fopt's bundled engine, not on vLLM: the settings carry over, the numbers may not. "
            "Before you rely on it, start it and measure it there too (fopt replay WORKLOAD --url ...)."
        )
        block = f"block-size ({config.block_size} in fopt's engine; vLLM on a CPU takes multiples of 32)"
        notes.append(f"Left to vLLM: {block}.")
    if config.engine == "simulated":
        notes.append(
            "It was predicted by fopt's simulator, not measured: start it on its hardware and measure it there before "
            "you rely on it (fopt replay WORKLOAD --url ...)."
        )
    if config.num_threads is not None:
        notes.append(
            f"CPU threads are no option but an environment variable: VLLM_CPU_OMP_THREADS_BIND={_cores(config)} "
            "(these core numbers, or others of your choice)."
        )
    if config.hardware.sku != "local":
        notes.append(f"Hardware per replica: {config.hardware.count} x {config.hardware.sku}.")
    return _as_comment(notes)


def _cores(config: EngineConfig) -> str:
    """One range of cores a tensor-parallel rank, e.g. `0-3|4-7`."""
    threads = config.num_threads or 1
    starts = range(0, threads * config.tensor_parallel_size, threads)
    return "|".join(f"{start}-{start + threads - 1}" if threads > 1 else str(start) for start in starts)


def _refusal(obstacles: list[str]) -> str:
    notes = ["vLLM cannot run the recommended configuration as it is, so this file holds no settings.", *obstacles]
    return _as_comment([*notes, "Serve it with fopt's own engine instead: fopt serve best.yaml"])


def _as_comment(notes: list[str]) -> str:
    lines = [line for note in notes for line in textwrap.wrap(note, _WIDTH, break_on_hyphens=False)]
    return "".join(f"# {line}\n" for line in lines)
