"""`target_modules`: which linear layers of a model a PEFT config names.

Does not read files and needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.bundled.errors import CheckpointError
from engine.bundled.layer_formats import MODULES, module_names

_NOT_SERVED = ("lm_head", "model.embed_tokens")  # PEFT can change these too
_SERVED = f"Served are {', '.join(module.rpartition('.')[2] for module in MODULES)} of the model's layers"


def target_modules(file: Path, raw: Mapping[str, Any], num_layers: int) -> tuple[str, ...]:
    """Names in the checkpoint's order, e.g. `model.layers.0.self_attn.q_proj`.

    PEFT's rules: a string is a regular expression for whole names; in a list are names or ends of names, of which only
    the latter are kept to the layers to transform. What names nothing is passed over: the adapter's tensors tell.

    Args:
        file: the adapter's config, for messages; `raw` is its content.

    Raises:
        CheckpointError: no layer, the output head or the embeddings.
    """
    wanted: str | Sequence[str] = raw.get("target_modules") or ()
    if isinstance(wanted, str) and wanted.lower() == "all-linear":
        wanted = MODULES

    def is_target(name: str) -> bool:
        if _is_excluded(name, raw.get("exclude_modules") or ()):
            return False
        if isinstance(wanted, str):
            return re.fullmatch(wanted, name) is not None
        return name in wanted or (_is_named(name, wanted) and _is_in_layers(name, raw))

    for name in filter(is_target, _NOT_SERVED):
        raise CheckpointError(f"{file}: target_modules names {name}. {_SERVED}")
    found = tuple(filter(is_target, module_names(num_layers)))
    if not found:
        said = wanted if isinstance(wanted, str) else ", ".join(sorted(wanted)) or "nothing"
        raise CheckpointError(f"{file}: target_modules names {said}, which is in no layer. {_SERVED}")
    return found


def _is_excluded(name: str, excluded: str | Sequence[str]) -> bool:
    return re.fullmatch(excluded, name) is not None if isinstance(excluded, str) else _is_named(name, excluded)


def _is_named(name: str, ends: Sequence[str]) -> bool:
    return any(name == end or name.endswith(f".{end}") for end in ends)


def _is_in_layers(name: str, raw: Mapping[str, Any]) -> bool:
    """Whether `layers_to_transform` holds the number after the list of layers that `layers_pattern` names."""
    numbers = raw.get("layers_to_transform")
    if numbers is None or numbers == []:
        return True
    patterns = raw.get("layers_pattern") or r"[^.]*"
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if match := re.match(rf"(.*?\.)??{pattern}\.(?P<number>\d+)\.", name):
            number = match["number"]
            return number is not None and int(number) in ([numbers] if isinstance(numbers, int) else numbers)
    return False
