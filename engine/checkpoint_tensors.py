"""Which tensors a checkpoint folder holds, by the headers of its safetensors files, and which it lacks.

Does not read weights and needs no torch. vLLM (0.32.0 on a CPU) serves whatever is in memory for a missing tensor.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

from engine.model_shape import ModelShape

# Families whose layers are all alike, so that what one layer has and another lacks is a fault.
_EVEN_FAMILIES = frozenset({"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"})
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\.[^.]+")
_ALWAYS = ("model.embed_tokens", "model.norm")
_MAX_HEADER_BYTES = 100_000_000


def tensor_names(folder: Path) -> set[str]:
    """Of all *.safetensors files.

    Raises:
        ValueError: a file that is no whole safetensors file; the message names it.
    """
    return {name for file in sorted(folder.glob("*.safetensors")) for name in _header(file) if name != "__metadata__"}


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of all *.safetensors files.

    Raises:
        ValueError: as `tensor_names`.
    """
    headers = [_header(file) for file in sorted(folder.glob("*.safetensors"))]
    return {
        name: tuple(entry["shape"]) for header in headers for name, entry in header.items() if name != "__metadata__"
    }


def _header(path: Path) -> dict[str, dict[str, list[int]]]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(size - 8, _MAX_HEADER_BYTES):
            raise ValueError(f"{path} is no safetensors file, or only a part of one")
        try:
            header: dict[str, dict[str, list[int]]] = json.loads(file.read(length))
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            raise ValueError(f"{path} has a header that cannot be read") from None
    if 8 + length + end > size:
        raise ValueError(f"{path} ends before its last tensor: {size} bytes of {8 + length + end}")
    return header


def missing_modules(names: set[str], shape: ModelShape) -> list[str]:
    """Modules that the checkpoint has no tensor of, e.g. `model.layers.3.mlp.down_proj`; [] for other families."""
    if shape.architecture not in _EVEN_FAMILIES:
        return []
    modules = {name.rpartition(".")[0] for name in names}
    found: dict[str, set[int]] = defaultdict(set)
    for name in names:
        if match := _LAYER.fullmatch(name):
            found[match[2]].add(int(match[1]))
    missing = [module for module in _ALWAYS if module not in modules]
    for part, layers in sorted(found.items()):
        missing += [f"model.layers.{n}.{part}" for n in range(shape.num_hidden_layers) if n not in layers]
    return missing if found else ["model.layers"]
