"""`best.vllm.yaml`: the same config as `vllm serve --config` reads it, or a comment that says why vLLM cannot.

Does not know how a config becomes options: `engine/vllm_options.py` does, for the engine and for this file alike.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import yaml

from engine.config import EngineConfig
from engine.vllm_options import needs_checkpoint, thread_binding, vllm_obstacles, vllm_options
from reports.whole_file import write_whole

BEST_VLLM = "best.vllm.yaml"
_WIDTH = 108
_CONNECTOR = {"kv_connector": "NixlConnector", "kv_role": "kv_both"}
_OTHERS = {
    "endpoint": "A running server was measured as it is. fopt does not know its settings, so this file holds none.",
    "command": (
        "The recommended configuration is of another server, started by its own command; its flags are not vLLM's, so "
        "this file holds no settings. Serve it with: fopt serve best.yaml"
    ),
}


def write_vllm(config: EngineConfig, directory: Path, *, checkpoint: Path | None = None) -> Path:
    """Write `best.vllm.yaml`: comments alone when vLLM cannot express the config; vLLM does not start from those.

    Args:
        checkpoint: the folder of quantized weights, where the config has such.
    """
    if config.engine in _OTHERS:
        return write_whole(directory / BEST_VLLM, _as_comment([_OTHERS[config.engine]]))
    instance = config.model_copy(update={"disaggregation": None})
    obstacles = vllm_obstacles(instance)
    if checkpoint is None and needs_checkpoint(config.quantization):
        obstacles.insert(0, _no_checkpoint(config))
    if obstacles:
        return write_whole(directory / BEST_VLLM, _refusal(obstacles))
    options = vllm_options(instance, checkpoint=checkpoint)
    if config.disaggregation is not None:
        options["kv-transfer-config"] = dict(_CONNECTOR)
    if checkpoint is not None:
        options["served-model-name"] = config.model  # clients need not know where the store is
    return write_whole(directory / BEST_VLLM, _comment(config) + _to_yaml(options))


def _no_checkpoint(config: EngineConfig) -> str:
    parts = config.quantization
    formats = [form for form in dict.fromkeys((parts.weights, *parts.overrides.values())) if form != "bf16"]
    return (
        f"Weights in {' and '.join(formats)} are made by fopt's own engine while it loads an unquantized "
        "checkpoint. vLLM has no option for that: it needs a checkpoint whose weights are already quantized."
    )


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
    notes += _environment_notes(config)
    if apart := config.disaggregation:
        notes.append(
            f"These are the settings of each instance: start {apart.prefill_instances} for prefill and "
            f"{apart.decode_instances} for decode per replica, on devices of their own, behind a router that sends a "
            "request first to one of the former and then to one of the latter. fopt neither starts them nor has tried."
        )
    if config.hardware.sku != "local":
        notes.append(f"Hardware per replica: {config.hardware.count} x {config.hardware.sku}.")
    return _as_comment(notes)


def _environment_notes(config: EngineConfig) -> list[str]:
    notes = []
    bound = thread_binding(config, None) if config.hardware.sku == "local" else None
    if bound:
        notes.append(
            f"CPU threads are no option but an environment variable: VLLM_CPU_OMP_THREADS_BIND='{bound}' "
            "(these core numbers, or others of your choice)."
        )
    if config.engine != "vllm":
        return notes
    if config.kv_cache_memory_bytes is None:
        notes.append("On CPUs set VLLM_CPU_KVCACHE_SPACE (GiB): without it vLLM takes nearly all memory.")
    else:
        notes.append("On CPUs an environment variable VLLM_CPU_KVCACHE_SPACE would override kv-cache-memory-bytes.")
    notes.append(
        "The package vllm-cpu (0.32.0) lacks the metadata that its own vllm command asks for: put a folder on "
        "PYTHONPATH that holds vllm-0.32.0+cpu.dist-info/METADATA with the lines Metadata-Version: 2.1, Name: vllm and "
        "Version: 0.32.0+cpu. fopt serve best.yaml does so by itself."
    )
    return notes


def _refusal(obstacles: list[str]) -> str:
    notes = ["vLLM cannot run the recommended configuration as it is, so this file holds no settings.", *obstacles]
    return _as_comment([*notes, "Serve it with fopt's own engine instead: fopt serve best.yaml"])


def _as_comment(notes: list[str]) -> str:
    lines = [line for note in notes for line in textwrap.wrap(note, _WIDTH, break_on_hyphens=False)]
    return "".join(f"# {line}\n" for line in lines)
