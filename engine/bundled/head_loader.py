"""Reads Medusa and EAGLE heads, which hang on a loaded target. Does not know how they draft.

Layouts are those that vLLM loads: Medusa `blocks.{head}.layers.{layer}.weight` and `lm_heads.{head}.weight`, EAGLE
`fc.weight` and `layers.0.*` without norms before and after. EAGLE heads share the target's embedding and output layer.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.bundled.errors import CheckpointError
from engine.bundled.head_config import load_medusa_config
from engine.bundled.loader import LoadedModel, assign, fuse, lay_out, layer_sources
from engine.bundled.model_config import load_model_config
from engine.bundled.tensor_reader import TensorReader
from engine.bundled.transformer import Decoder


class Best(NamedTuple):
    """Of each head and row the likeliest tokens, best first, and the probabilities they are given: [K][B][R]."""

    token_ids: list[list[list[int]]]
    probabilities: list[list[list[float]]]


class MedusaHeads(nn.Module):
    """K heads, of which number k guesses the token k + 1 places after the one the target draws (Cai et al. 2024)."""

    def __init__(self, blocks: list[list[Tensor]], outputs: list[Tensor]) -> None:
        super().__init__()
        layers = [torch.stack(weights).transpose(1, 2).contiguous() for weights in zip(*blocks, strict=True)]
        self.layers = nn.ParameterList(nn.Parameter(layer, requires_grad=False) for layer in layers)  # [K, H, H] each
        heads = torch.stack(outputs).transpose(1, 2).contiguous()
        self.heads = nn.Parameter(heads, requires_grad=False)  # [K, H, V]

    @property
    def num_heads(self) -> int:
        return len(self.heads)

    @property
    def vocab_size(self) -> int:
        return self.heads.shape[-1]

    def forward(self, hidden: Tensor, num_heads: int) -> Tensor:
        """Float32 logits [num_heads, B, V] of target hidden states [B, H]."""
        x = hidden.expand(num_heads, *hidden.shape)
        for layer in self.layers:
            x = x + F.silu(torch.bmm(x, layer[:num_heads]))
        return torch.bmm(x, self.heads[:num_heads]).float()

    def best(self, hidden: Tensor, num_heads: int, num_ranks: int) -> Best:
        """The `num_ranks` likeliest tokens of the first `num_heads` heads at target hidden states [B, H]."""
        logits = self(hidden, num_heads)
        best = logits.topk(num_ranks, -1)
        probabilities = (best.values - logits.logsumexp(-1, keepdim=True)).exp_()
        return Best(best.indices.tolist(), probabilities.tolist())


class EagleInput(nn.Module):
    """Token embeddings and the features one place before them, mixed to the head's input (Li et al. 2024)."""

    def __init__(self, embedding: Tensor, mix: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.embedding = nn.Parameter(embedding, requires_grad=False)  # [V, H]
        self.mix = nn.Parameter(mix, requires_grad=False)  # [H, 2 H]
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, token_ids: Tensor, features: Tensor) -> Tensor:
        """[N, H] of token ids [N] and features [N, H]."""
        return F.linear(torch.cat((self.embedding[token_ids], features), -1), self.mix, self.bias)


def load_medusa_heads(folder: Path, target: LoadedModel) -> MedusaHeads:
    """Heads in the target's dtype, on its device.

    Raises:
        CheckpointError: the folder cannot be read, or the heads belong to another target.
    """
    config = load_medusa_config(folder)
    _refuse_foreign(folder, target, hidden_size=config.hidden_size, vocab_size=config.vocab_size)
    with ExitStack() as stack:
        reader = TensorReader(folder, stack)

        def read(name: str, shape: tuple[int, int]) -> Tensor:
            return _checked(reader.read(name), name, shape, folder).to(_device(target), target.dtype)

        size, numbers = config.hidden_size, range(config.num_heads)
        blocks = [
            [read(f"blocks.{k}.layers.{i}.weight", (size, size)) for i in range(config.num_layers)] for k in numbers
        ]
        outputs = [read(f"lm_heads.{k}.weight", (config.vocab_size, size)) for k in numbers]
        reader.refuse_unused(tied=False)
    return MedusaHeads(blocks, outputs)


def load_eagle_head(folder: Path, target: LoadedModel, *, max_positions: int) -> tuple[LoadedModel, EagleInput]:
    """The head as a one-layer model that is fed with `EagleInput`'s rows.

    Raises:
        CheckpointError: the folder cannot be read, or the head belongs to another target.
    """
    config = load_model_config(folder)
    _refuse_foreign(folder, target, hidden_size=config.hidden_size, vocab_size=config.vocab_size)
    if config.num_layers != 1:
        raise CheckpointError(f"{folder} has {config.num_layers} layers. EAGLE heads of one layer are supported")
    if config.stored_formats:
        raise CheckpointError(f"{folder} holds a quantized head, which is not supported. Give the unquantized one")
    device = _device(target)
    with torch.device("meta"):
        decoder = Decoder(config)
    with ExitStack() as stack:
        reader = TensorReader(folder, stack)
        for name, parts in layer_sources(config):
            if name != "input_layernorm.weight":
                tensor = fuse([reader.read(f"layers.0.{part}") for part in parts], name, config)
                assign(decoder, f"layers.0.{name}", lay_out(tensor.to(device, target.dtype)), folder)
        size = config.hidden_size
        mix = _checked(reader.read("fc.weight"), "fc.weight", (size, 2 * size), folder)
        bias = reader.read("fc.bias") if "fc.bias" in reader.unused else None
        reader.unused.discard("embed_tokens.weight")  # some heads carry a copy of the target's
        reader.refuse_unused(tied=True)
    decoder.get_submodule("layers.0").input_layernorm = nn.Identity()
    decoder.norm = nn.Identity()  # type: ignore[assignment]
    decoder.embed_tokens, decoder.lm_head = target.decoder.embed_tokens, target.decoder.lm_head
    decoder.rotary.fill(max_positions, dtype=target.dtype, device=device)
    inputs = EagleInput(
        target.decoder.embed_tokens.weight,
        lay_out(mix.to(device, target.dtype)),
        None if bias is None else bias.to(device, target.dtype),
    )
    return LoadedModel(config, decoder.eval().requires_grad_(False), target.dtype), inputs


def _device(target: LoadedModel) -> torch.device:
    return target.decoder.embed_tokens.weight.device


def _refuse_foreign(folder: Path, target: LoadedModel, *, hidden_size: int, vocab_size: int) -> None:
    own = (target.config.hidden_size, target.config.vocab_size)
    if (hidden_size, vocab_size) != own:
        raise CheckpointError(
            f"{folder} is for a model of hidden size {hidden_size} and {vocab_size} tokens, the target has "
            f"{own[0]} and {own[1]}. Heads belong to the model they were trained on"
        )


def _checked(tensor: Tensor, name: str, shape: tuple[int, int], folder: Path) -> Tensor:
    if tensor.shape != shape:
        raise CheckpointError(f"{folder}: {name} has shape {tuple(tensor.shape)}, config.json says {shape}")
    return tensor
