"""Which formats a checkpoint is stored in, from the `quantization_config` of its config.json (compressed-tensors).

Does not import torch: `quantized_layers.py` reads the tensors. What would compute other numbers than meant is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from engine.bundled.errors import CheckpointError
from engine.bundled.layer_formats import WEIGHT_FORMATS, Formats, LayerFormat, module_names
from engine.config import ActivationFormat, WeightFormat

_LAYOUTS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision")
_LINEAR = "Linear"  # a target that means every linear layer


def stored_formats(folder: Path, raw: Any, num_layers: int) -> Formats:
    """Formats of the quantized modules by name; empty for an unquantized checkpoint.

    Raises:
        CheckpointError: another tool's layout, or a scheme this engine does not compute.
    """
    if not raw:
        return {}
    _refuse_layout(folder, raw)
    groups = [
        (group.get("targets", []), _format(folder, name, group)) for name, group in raw.get("config_groups", {}).items()
    ]
    found = {}
    for module in module_names(num_layers):
        if not _ranks(raw.get("ignore", []), module):
            ranked = [(rank, form) for targets, form in groups for rank in _ranks(targets, module)]
            if ranked:
                found[module] = min(ranked, key=lambda pair: pair[0])[1]
    if any(_ranks(targets, "lm_head") for targets, _ in groups) and not _ranks(raw.get("ignore", []), "lm_head"):
        raise _refused(folder, "the output head is quantized, which is not supported. Quantize with lm_head ignored")
    return found


def _refuse_layout(folder: Path, raw: dict[str, Any]) -> None:
    method, layout = raw.get("quant_method"), raw.get("format")
    if method != "compressed-tensors":
        raise _refused(folder, f"quant_method {method!r} is not read, only compressed-tensors. Quantize it anew")
    if layout not in _LAYOUTS or raw.get("quantization_status", "compressed") != "compressed":
        raise _refused(folder, f"format {layout!r} is not read, only compressed ones of {', '.join(_LAYOUTS)}")
    for key in ("kv_cache_scheme", "sparsity_config", "transform_config"):
        if raw.get(key):
            raise _refused(folder, f"it has a {key}, which is not supported. Quantize weights and activations alone")


def _format(folder: Path, name: str, group: dict[str, Any]) -> LayerFormat:
    if group.get("output_activations"):
        raise _refused(folder, f"{name} rounds output activations, which is not supported")
    weights, inputs = group.get("weights"), group.get("input_activations")
    found = LayerFormat(_weights(weights or {}), _activations(inputs))  # type: ignore[arg-type]
    fits = found.activations in ("bf16", found.weights)
    if found.weights is None or found.activations is None or not fits:
        told = f"weights {_told(weights)} with activations {_told(inputs)}"
        known = "int8 or fp8 per channel, alone or with the same per token, and int4 in groups of 32, 64 or 128"
        raise _refused(folder, f"{name} has {told}; this engine computes {known}")
    return found


def _weights(scheme: dict[str, Any]) -> WeightFormat | None:
    kind, bits = scheme.get("type", "int"), scheme.get("num_bits")
    strategy, symmetric = scheme.get("strategy"), scheme.get("symmetric", True)
    if bits == 8 and strategy in ("channel", "tensor") and symmetric:
        return "fp8" if kind == "float" else "int8"
    name = f"int4_g{scheme.get('group_size')}{'' if symmetric else '_asym'}"
    is_known = (kind, bits, strategy) == ("int", 4, "group") and scheme.get("actorder") not in (
        "group",
        True,
        "dynamic",
    )
    return next((form for form in WEIGHT_FORMATS if form == name), None) if is_known else None


def _activations(scheme: dict[str, Any] | None) -> ActivationFormat | None:
    if not scheme:
        return "bf16"
    is_known = (scheme.get("num_bits"), scheme.get("strategy"), scheme.get("dynamic")) == (8, "token", True)
    if not is_known or not scheme.get("symmetric", True):
        return None
    return "fp8" if scheme.get("type", "int") == "float" else "int8"


def _told(scheme: dict[str, Any] | None) -> str:
    if not scheme:
        return "left alone"
    sort = [f"{scheme.get('type', 'int')}{scheme.get('num_bits')}", f"per {scheme.get('strategy')}"]
    sort += [f"of {scheme['group_size']}"] if scheme.get("group_size") else []
    sort += [] if scheme.get("symmetric", True) else ["asymmetric"]
    sort += [f"actorder {scheme['actorder']}"] if scheme.get("actorder") else []
    return " ".join([*sort, "dynamic" if scheme.get("dynamic") else "static"])


def _ranks(targets: Iterable[str], module: str) -> list[int]:
    """How closely each target that matches names the module, 0 closest: its name, a pattern, its class."""
    ranks = []
    for target in targets:
        if target == module:
            ranks.append(0)
        elif target.startswith("re:") and re.match(target.removeprefix("re:"), module):
            ranks.append(1)
        elif target == _LINEAR:
            ranks.append(2)
    return ranks


def _refused(folder: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{folder}: quantization_config: {reason}")
