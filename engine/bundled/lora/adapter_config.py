"""`AdapterConfig`: what the `adapter_config.json` of a Hugging Face PEFT folder says, checked against its model.

Does not read tensors and needs no torch: the headers of the files are enough.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.bundled.errors import CheckpointError, UnsupportedError
from engine.bundled.lora.target_modules import target_modules
from engine.bundled.model_config import ModelConfig, read_json
from engine.checkpoint_tensors import tensor_shapes

_REFUSED = (  # keys that change more than y += scale B A x on a linear layer
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "kasa_config",
    "velora_config",
    "monteclora_config",
    "arrow_config",
    "alora_invocation_tokens",
    "modules_to_save",
    "target_parameters",
    "lora_bias",
    "layer_replication",
    "trainable_token_indices",
)
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # of `init_lora_weights`, where names begin so
_PREFIX = "base_model.model."
_FILE = "adapter_config.json"


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """y += scale(module) * B A x for each target module, A [rank, in] and B [out, rank]."""

    folder: Path
    rank: int
    alpha: float
    rank_stabilized: bool
    modules: tuple[str, ...]  # that it changes, e.g. `model.layers.0.self_attn.q_proj`
    ranks: dict[str, int] = field(default_factory=dict)  # by a pattern of the module's name
    alphas: dict[str, float] = field(default_factory=dict)

    def rank_of(self, module: str) -> int:
        return int(_matching(self.ranks, module, self.rank))

    def scale_of(self, module: str) -> float:
        """alpha / rank; alpha / sqrt(rank) where the adapter is rank-stabilized (Kalajdzievski 2023)."""
        rank = self.rank_of(module)
        return _matching(self.alphas, module, self.alpha) / (math.sqrt(rank) if self.rank_stabilized else rank)

    @property
    def max_rank(self) -> int:
        return max(map(self.rank_of, self.modules))


def tensor_names(module: str) -> tuple[str, str]:
    """A's and B's names in `adapter_model.safetensors`."""
    return f"{_PREFIX}{module}.lora_A.weight", f"{_PREFIX}{module}.lora_B.weight"


def checked_adapter(folder: Path, model: ModelConfig, *, max_rank: int) -> AdapterConfig:
    """The folder's adapter, whose tensors are complete and fit the model.

    Raises:
        CheckpointError: as `load_adapter_config`; tensors that are missing, too many or of another model's shape.
        UnsupportedError: a rank above `max_rank`.
    """
    try:
        return _checked(folder, model, max_rank=max_rank)
    except (re.error, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{folder / _FILE} holds a value of the wrong kind: {error}") from None


def _checked(folder: Path, model: ModelConfig, *, max_rank: int) -> AdapterConfig:
    config = load_adapter_config(folder, model)
    if config.max_rank > max_rank:
        raise UnsupportedError(f"{folder}: rank {config.max_rank} is more than max_lora_rank {max_rank}. Raise that")
    try:
        found = tensor_shapes(folder)
    except ValueError as error:
        raise CheckpointError(f"{error}. Save the adapter again") from None
    if not found:
        raise CheckpointError(f"{folder} holds no *.safetensors file. Save the adapter as adapter_model.safetensors")
    shapes = module_shapes(model)
    expected: dict[str, tuple[int, int]] = {}
    for module in config.modules:
        (rows, columns), rank = shapes[module.split(".", 3)[3]], config.rank_of(module)
        expected |= dict(zip(tensor_names(module), ((rank, columns), (rows, rank)), strict=True))
    for name, shape in expected.items():
        if name not in found:
            raise CheckpointError(f"{folder}: tensor {name} is missing. Check that the adapter is complete")
        if found[name] != shape:
            raise CheckpointError(
                f"{folder}: {name} has shape {found[name]}, this model needs {shape}. The adapter is another model's"
            )
    if extra := found.keys() - expected.keys():
        raise CheckpointError(f"{folder}: {len(extra)} tensors have no place in this model, e.g. {min(extra)}")
    return config


def module_shapes(model: ModelConfig) -> dict[str, tuple[int, int]]:
    """(out, in) of each of `MODULES`."""
    queries, keys = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    hidden, wide = model.hidden_size, model.intermediate_size
    return {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (wide, hidden),
        "mlp.up_proj": (wide, hidden),
        "mlp.down_proj": (hidden, wide),
    }


def load_adapter_config(folder: Path, model: ModelConfig) -> AdapterConfig:
    """Read the folder's `adapter_config.json`.

    Raises:
        CheckpointError: no such folder or file, no LoRA adapter, or one with parts that are not served.
    """
    if not folder.is_dir():
        raise CheckpointError(f"adapter folder {folder} does not exist. Give a Hugging Face PEFT folder")
    file = folder / _FILE
    raw = read_json(file)
    kind = raw.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(f"{file}: peft_type is {kind}. Only LORA is served")
    _refuse_variants(file, raw)
    try:
        rank, alpha = int(raw["r"]), float(raw["lora_alpha"])
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{file} lacks r or lora_alpha, or one is no number") from None
    if rank < 1:
        raise CheckpointError(f"{file}: r {rank} is no rank of an adapter")
    if rank != float(raw["r"]) or not math.isfinite(alpha):
        raise CheckpointError(f"{file}: r {raw['r']} and lora_alpha {alpha} are not a whole and a finite number")
    return AdapterConfig(
        folder=folder,
        rank=rank,
        alpha=alpha,
        rank_stabilized=bool(raw.get("use_rslora")),
        modules=target_modules(file, raw, model.num_layers),
        ranks=raw.get("rank_pattern") or {},
        alphas=raw.get("alpha_pattern") or {},
    )


def _refuse_variants(file: Path, raw: Mapping[str, Any]) -> None:
    for name in _REFUSED:
        if raw.get(name):
            raise CheckpointError(f"{file}: {name} is not served. Give an adapter without it")
    if raw.get("bias", "none") != "none":
        raise CheckpointError(f"{file}: bias {raw['bias']!r} is not served. Give an adapter with bias none")
    start = raw.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise CheckpointError(
            f"{file}: init_lora_weights {start!r} changes the base model's weights, which is not served. "
            "Save the adapter converted to plain LoRA (PEFT: path_initial_model_for_weight_conversion)"
        )


def _matching(patterns: dict[str, Any], module: str, default: float) -> float:
    """PEFT's rule: a pattern is the end of a module's name, or a regular expression for it."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return float(value)
    return default
