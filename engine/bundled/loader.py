"""Reads a Hugging Face folder of safetensors into a `Decoder`, fusing q/k/v and gate/up.

Layers that the checkpoint holds quantized stay so. Does not know other quantization: that transforms what was loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from engine.bundled.errors import CheckpointError
from engine.bundled.layer_formats import MATRICES, LayerFormat, layer_formats, matrix_formats
from engine.bundled.model_config import ModelConfig, load_model_config
from engine.bundled.parallel.shard import WHOLE, Shard
from engine.bundled.quantized_layers import read_layer
from engine.bundled.tensor_reader import TensorReader
from engine.bundled.transformer import Decoder
from engine.config import Quantization

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SMALL_BYTES = 64 << 20


class LoadedModel(NamedTuple):
    config: ModelConfig
    decoder: Decoder
    dtype: torch.dtype


def load_model(
    folder: Path, *, dtype: str, max_positions: int | None, device: torch.device, shard: Shard = WHOLE
) -> LoadedModel:
    """Load weights in `dtype` (`auto` is the checkpoint's) onto `device`.

    Args:
        max_positions: length of the rotary tables; None is all the checkpoint allows.
        shard: the part of a tensor-parallel rank; the config returned is that part's.

    Raises:
        CheckpointError: the folder cannot be read or does not fit its config.
        UnsupportedError: it is quantized in a way that this engine does not compute.
    """
    config = shard.local(load_model_config(folder))
    wanted = resolve_dtype(config.dtype if dtype == "auto" else dtype, folder)
    with torch.device("meta"):
        decoder = Decoder(config)
    with ExitStack() as stack:
        reader = TensorReader(folder, stack)
        stored = _stored_layers(config)
        for name, parts in _sources(config):
            if name.removesuffix(".weight") in stored:
                continue
            tensor = fuse([shard.part(part, reader.read(part)) for part in parts], name, config)
            assign(decoder, name, lay_out(tensor.to(device, wanted)), folder)
        for name, (modules, form) in stored.items():
            layer = read_layer(reader, modules, form, decoder.get_submodule(name), wanted)
            decoder.set_submodule(name, layer.to(device))
        reader.refuse_unused(tied=config.tie_word_embeddings)
    if config.tie_word_embeddings:
        _tie(decoder)
    decoder.rotary.fill(max_positions or config.max_position_embeddings, dtype=wanted, device=device)
    return LoadedModel(config, decoder.eval().requires_grad_(False), wanted)


def resolve_dtype(name: str, folder: Path) -> torch.dtype:
    if name not in DTYPES:
        raise CheckpointError(f"{folder}: dtype {name} is not supported. Use one of {', '.join(DTYPES)}")
    return DTYPES[name]


def _stored_layers(config: ModelConfig) -> dict[str, tuple[list[str], LayerFormat]]:
    """The quantized layers by their names here: the checkpoint's modules they are made of, and their format."""
    formats = layer_formats(Quantization(), config.stored_formats, config.num_layers)
    return {
        f"layers.{layer}.{matrix}": ([f"model.layers.{layer}.{part}" for part in MATRICES[matrix]], form)
        for layer in range(config.num_layers)
        for matrix, form in matrix_formats(formats, layer).items()
        if form.weights != "bf16"
    }


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
