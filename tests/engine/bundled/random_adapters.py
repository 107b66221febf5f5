"""Random LoRA adapters in PEFT's layout, and the checkpoint that one of them makes when it is merged."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from engine.bundled.lora.adapter_config import load_adapter_config, module_shapes, tensor_names
from engine.bundled.model_config import load_model_config

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def save_adapter(folder: Path, base: Path, *, seed: int, size: float = 0.3, **fields: object) -> Path:
    """Random A and B for the base's layers; the config's fields can be overridden."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ALL, "bias": "none"} | fields
    (folder / "adapter_config.json").write_text(json.dumps(values))
    config = load_adapter_config(folder, load_model_config(base))
    save_tensors(folder, base, {module: config.rank_of(module) for module in config.modules}, seed=seed, size=size)
    return folder


def save_tensors(folder: Path, base: Path, ranks: Mapping[str, int], *, seed: int, size: float = 0.3) -> None:
    """Random A and B of these modules, e.g. `model.layers.0.self_attn.q_proj`."""
    shapes, generator, tensors = module_shapes(load_model_config(base)), torch.Generator().manual_seed(seed), {}
    for module, rank in ranks.items():
        rows, columns = shapes[module.split(".", 3)[3]]
        a, b = tensor_names(module)
        tensors[a] = torch.randn(rank, columns, generator=generator) * size
        tensors[b] = torch.randn(rows, rank, generator=generator) * size
    save_file(tensors, folder / "adapter_model.safetensors")


def save_merged(folder: Path, base: Path, adapter: Path, scales: Mapping[str, float] | None = None) -> Path:
    """The base with W + scale B A in place of each W; scales by module, by default what the adapter's config says."""
    shutil.copytree(base, folder)
    if scales is None:
        config = load_adapter_config(adapter, load_model_config(base))
        scales = {module: config.scale_of(module) for module in config.modules}
    weights, deltas = load_file(folder / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    for module, scale in scales.items():
        a, b = (deltas[name] for name in tensor_names(module))
        weights[f"{module}.weight"] += scale * (b @ a)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
