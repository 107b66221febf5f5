"""`ModelConfig`: what `config.json` and `generation_config.json` of a Hugging Face folder say.

Does not know tensors or memory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.bundled.errors import CheckpointError
from engine.bundled.layer_formats import Formats
from engine.bundled.stored_formats import stored_formats


@dataclass(frozen=True, kw_only=True)
class Family:
    """What sets one architecture apart from Llama; None leaves it to the checkpoint's `attention_bias`."""

    qkv_bias: bool | None = None
    output_bias: bool | None = None
    qk_norm: bool = False


FAMILIES = {
    "LlamaForCausalLM": Family(),
    "Qwen2ForCausalLM": Family(qkv_bias=True, output_bias=False),
    "Qwen3ForCausalLM": Family(qk_norm=True),
}


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Rotary frequencies' scaling; `kind` is `default`, `linear` or `llama3`."""

    theta: float
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 0


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of one decoder."""

    architecture: str
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope: RopeScaling
    tie_word_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    qk_norm: bool
    dtype: str
    eos_token_ids: tuple[int, ...]
    stored_formats: Formats  # of the modules that the checkpoint holds quantized


def load_model_config(folder: Path) -> ModelConfig:
    """Read the folder's `config.json`.

    Raises:
        CheckpointError: no such folder or file, unsupported architecture or feature.
    """
    if not folder.is_dir():
        raise CheckpointError(f"model folder {folder} does not exist. Give a Hugging Face folder on this machine")
    raw = read_json(folder / "config.json")
    architecture = (raw.get("architectures") or ["(none)"])[0]
    if architecture not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise CheckpointError(f"{folder}: architecture {architecture} is not supported. The bundled engine has {known}")
    _refuse_unsupported(folder, raw)
    try:
        return _parse(folder, raw, architecture)
    except KeyError as error:
        raise CheckpointError(f"{folder}/config.json lacks {error}. Check that the checkpoint is complete") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a checkpoint file.

    Raises:
        CheckpointError: missing, not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}. Is this a Hugging Face folder?") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return value


def _refuse_unsupported(folder: Path, raw: dict[str, Any]) -> None:
    refused = {
        "mlp_bias": "has MLP biases, which are not supported",
        "use_sliding_window": "uses sliding-window attention, which is not supported",
    }
    for key, reason in refused.items():
        if raw.get(key):
            raise CheckpointError(f"{folder} {reason}")
    if raw.get("hidden_act", "silu") != "silu":
        raise CheckpointError(f"{folder}: activation {raw['hidden_act']} is not supported, only silu")


def _parse(folder: Path, raw: dict[str, Any], architecture: str) -> ModelConfig:
    family = FAMILIES[architecture]
    has_bias = bool(raw.get("attention_bias", False))
    num_heads = raw["num_attention_heads"]
    return ModelConfig(
        architecture=architecture,
        num_layers=raw["num_hidden_layers"],
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["intermediate_size"],
        num_heads=num_heads,
        num_kv_heads=raw.get("num_key_value_heads") or num_heads,
        head_dim=raw.get("head_dim") or raw["hidden_size"] // num_heads,
        vocab_size=raw["vocab_size"],
        max_position_embeddings=raw["max_position_embeddings"],
        rms_norm_eps=raw.get("rms_norm_eps", 1e-6),
        rope=_parse_rope(folder, raw),
        tie_word_embeddings=raw.get("tie_word_embeddings", False),
        qkv_bias=has_bias if family.qkv_bias is None else family.qkv_bias,
        output_bias=has_bias if family.output_bias is None else family.output_bias,
        qk_norm=family.qk_norm,
        dtype=raw.get("dtype") or raw.get("torch_dtype") or "float32",
        eos_token_ids=_eos_token_ids(folder, raw),
        stored_formats=stored_formats(folder, raw.get("quantization_config"), raw["num_hidden_layers"]),
    )


def _parse_rope(folder: Path, raw: dict[str, Any]) -> RopeScaling:
    scaling = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    theta = scaling.get("rope_theta") or raw.get("rope_theta") or 10000.0
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind not in ("default", "linear", "llama3"):
        raise CheckpointError(f"{folder}: rope scaling {kind!r} is not supported, only default, linear and llama3")
    if kind == "default":
        return RopeScaling(theta=theta)
    original = scaling.get("original_max_position_embeddings") or raw["max_position_embeddings"]
    return RopeScaling(
        theta=theta,
        kind=kind,
        factor=scaling["factor"],
        low_freq_factor=scaling.get("low_freq_factor", 1.0),
        high_freq_factor=scaling.get("high_freq_factor", 4.0),
        original_max_position_embeddings=original,
    )


def _eos_token_ids(folder: Path, raw: dict[str, Any]) -> tuple[int, ...]:
    """End tokens of the generation config, which chat checkpoints extend, else of the model config."""
    generation = folder / "generation_config.json"
    found = read_json(generation).get("eos_token_id") if generation.exists() else None
    if found is None:
        found = raw.get("eos_token_id")
    if found is None:
        return ()
    return tuple(found) if isinstance(found, list) else (found,)
