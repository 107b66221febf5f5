"""Reads a Hugging Face folder of safetensors into a `Decoder`, fusing q/k/v and gate/up.

Does not know quantization: that transforms the loaded decoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from engine.bundled.errors import CheckpointError
from engine.bundled.model_config import ModelConfig, load_model_config, read_json
from engine.bundled.transformer import Decoder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SMALL_BYTES = 64 << 20
_IGNORED_SUFFIXES = ("rotary_emb.inv_freq",)


class LoadedModel(NamedTuple):
    config: ModelConfig
    decoder: Decoder
    dtype: torch.dtype


def load_model(folder: Path, *, dtype: str, max_positions: int | None, device: torch.device) -> LoadedModel:
    """Load weights in `dtype` (`auto` is the checkpoint's) onto `device`.

    Args:
        max_positions: length of the rotary tables; None is all the checkpoint allows.

    Raises:
        CheckpointError: the folder cannot be read or does not fit its config.
    """
    config = load_model_config(folder)
    wanted = resolve_dtype(config.dtype if dtype == "auto" else dtype, folder)
    with torch.device("meta"):
        decoder = Decoder(config)
    with ExitStack() as stack:
        reader = TensorReader(folder, stack)
        for name, parts in _sources(config):
            tensor = fuse([reader.read(part) for part in parts], name, config)
            assign(decoder, name, lay_out(tensor.to(device, wanted)), folder)
        reader.refuse_unused(tied=config.tie_word_embeddings)
    if config.tie_word_embeddings:
        _tie(decoder)
    decoder.rotary.fill(max_positions or config.max_position_embeddings, dtype=wanted, device=device)
    return LoadedModel(config, decoder.eval().requires_grad_(False), wanted)


def resolve_dtype(name: str, folder: Path) -> torch.dtype:
    if name not in DTYPES:
        raise CheckpointError(f"{folder}: dtype {name} is not supported. Use one of {', '.join(DTYPES)}")
    return DTYPES[name]


def _sources(config: ModelConfig) -> Iterator[tuple[str, list[str]]]:
    """Each parameter of the decoder with the checkpoint tensors it is made of."""
    yield "embed_tokens.weight", ["model.embed_tokens.weight"]
    yield "norm.weight", ["model.norm.weight"]
    if not config.tie_word_embeddings:
        yield "lm_head.weight", ["lm_head.weight"]
    for layer in range(config.num_layers):
        mine, theirs = f"layers.{layer}", f"model.layers.{layer}"
        for name, parts in layer_sources(config):
            yield f"{mine}.{name}", [f"{theirs}.{part}" for part in parts]


def layer_sources(config: ModelConfig) -> Iterator[tuple[str, list[str]]]:
    qkv = [f"self_attn.{part}_proj" for part in "qkv"]
    yield "input_layernorm.weight", ["input_layernorm.weight"]
    yield "post_attention_layernorm.weight", ["post_attention_layernorm.weight"]
    yield "self_attn.qkv_proj.weight", [f"{part}.weight" for part in qkv]
    yield "self_attn.o_proj.weight", ["self_attn.o_proj.weight"]
    yield "mlp.gate_up_proj.weight", ["mlp.gate_proj.weight", "mlp.up_proj.weight"]
    yield "mlp.down_proj.weight", ["mlp.down_proj.weight"]
    if config.qkv_bias:
        yield "self_attn.qkv_proj.bias", [f"{part}.bias" for part in qkv]
    if config.output_bias:
        yield "self_attn.o_proj.bias", ["self_attn.o_proj.bias"]
    if config.qk_norm:
        yield "self_attn.qk_norm.weight", ["self_attn.q_norm.weight", "self_attn.k_norm.weight"]


def fuse(parts: list[Tensor], name: str, config: ModelConfig) -> Tensor:
    if name.endswith("qk_norm.weight"):
        heads = (config.num_heads, config.num_kv_heads)
        return torch.cat([part.expand(count, -1) for part, count in zip(parts, heads, strict=True)])
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _tie(decoder: Decoder) -> None:
    """Share one tensor; a small one is held twice, each in the order its use likes best."""
    embedding = decoder.embed_tokens.weight
    decoder.lm_head.weight = embedding
    if embedding.numel() * embedding.element_size() <= _SMALL_BYTES:
        decoder.embed_tokens.weight = nn.Parameter(embedding.contiguous(), requires_grad=False)


def lay_out(tensor: Tensor) -> Tensor:
    """The same numbers in the memory order the device's kernels like best.

    float32 products on a CPU run up to twice as fast over a weight stored [in, out].
    """
    if tensor.dim() == 2 and tensor.device.type == "cpu" and tensor.dtype == torch.float32:
        return tensor.t().contiguous().t()
    return tensor


def assign(decoder: Decoder, name: str, tensor: Tensor, folder: Path) -> None:
    module_name, _, parameter = name.rpartition(".")
    module = decoder.get_submodule(module_name)
    expected = getattr(module, parameter).shape
    if tensor.shape != expected:
        raise CheckpointError(
            f"{folder}: {name} has shape {tuple(tensor.shape)}, config.json says {tuple(expected)}. "
            "The weights do not belong to this config"
        )
    setattr(module, parameter, nn.Parameter(tensor, requires_grad=False))


class TensorReader:
    """Tensors of one or many safetensors files by name."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.unused: set[str] = set()
        self._files = {}
        for path in _weight_files(folder):
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except (OSError, SafetensorError) as error:
                raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from None
            for name in file.keys():  # noqa: SIM118 (safe_open has no __iter__)
                self._files[name] = file
                self.unused.add(name)

    def read(self, name: str) -> Tensor:
        if name not in self._files:
            raise CheckpointError(f"{self.folder}: tensor {name} is missing. Check that the checkpoint is complete")
        self.unused.discard(name)
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor

    def refuse_unused(self, *, tied: bool) -> None:
        """A tensor nobody asked for would silently change the model's numbers."""
        extra = {name for name in self.unused if not name.endswith(_IGNORED_SUFFIXES)}
        if tied:
            extra.discard("lm_head.weight")
        if extra:
            raise CheckpointError(
                f"{self.folder}: {len(extra)} tensors have no place in this architecture, e.g. {min(extra)}"
            )


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        return sorted({folder / name for name in read_json(index)["weight_map"].values()})
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{folder} holds no .safetensors weights. Convert the checkpoint to safetensors first")
    return files
