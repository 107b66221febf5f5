"""One decoder for the Llama, Qwen2 and Qwen3 families.

Does not know pages, batches, quantization or drawing: attention is handed in, and quantization replaces
its `nn.Linear` modules from outside.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.bundled.model_config import ModelConfig, RopeScaling


class Attend(Protocol):
    """Writes one layer's keys and values where they belong and attends to all of the sequence's."""

    def attend(self, layer: int, query: Tensor, key_value: Tensor) -> Tensor:
        """Attention output [N, Hq * D] of query [N, Hq, D] and key_value [N, 2 * Hkv, D], keys first."""
        ...


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size), requires_grad=False)
        self.size = (size,)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.size, self.weight, self.eps)


class RotaryEmbedding(nn.Module):
    """Cosines and signed sines per position, once per step for all layers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("cos", torch.empty(0), persistent=False)  # [P, D]
        self.register_buffer("sin", torch.empty(0), persistent=False)  # [P, D], first half negated

    def fill(self, max_positions: int, *, dtype: torch.dtype, device: torch.device) -> None:
        """Compute the tables in float32 and keep them in `dtype`."""
        frequencies = rotary_frequencies(self.config.rope, self.config.head_dim)
        angles = torch.outer(torch.arange(max_positions).float(), frequencies)  # [P, D / 2]
        self.cos = torch.cat((angles.cos(), angles.cos()), -1).to(device, dtype)
        self.sin = torch.cat((-angles.sin(), angles.sin()), -1).to(device, dtype)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Tables of each token, [N, 1, D], to be broadcast over heads."""
        return self.cos[positions].unsqueeze(1), self.sin[positions].unsqueeze(1)


def rotary_frequencies(rope: RopeScaling, head_dim: int) -> Tensor:
    """Inverse frequencies [D / 2] in float32, scaled as the checkpoint was trained."""
    frequencies = 1.0 / rope.theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if rope.kind == "linear":
        return frequencies / rope.factor
    if rope.kind == "llama3":
        return _llama3_frequencies(frequencies, rope)
    return frequencies


def _llama3_frequencies(frequencies: Tensor, rope: RopeScaling) -> Tensor:
    """Long wavelengths divided by the factor, short ones kept, a linear blend between (Llama 3.1)."""
    turns = rope.original_max_position_embeddings * frequencies / (2 * math.pi)
    blend = ((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)).clamp(0, 1)
    return blend * frequencies + (1 - blend) * frequencies / rope.factor


def rotate_(heads: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Apply rotary position embedding to heads [N, H, D] in place; `sin` carries the sign of rotate_half."""
    half = heads.shape[-1] // 2
    swapped = torch.cat((heads[..., half:], heads[..., :half]), -1)
    heads.mul_(cos).add_(swapped.mul_(sin))


class Attention(nn.Module):
    """Queries, keys and values from one matrix; the seam to paged attention is `Attend`."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.num_heads, self.num_kv_heads, self.head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self.num_rotated = config.num_heads + config.num_kv_heads
        heads = config.num_heads + 2 * config.num_kv_heads
        self.qkv_proj = nn.Linear(config.hidden_size, heads * config.head_dim, bias=config.qkv_bias)
        self.o_proj = nn.Linear(config.num_heads * config.head_dim, config.hidden_size, bias=config.output_bias)
        self.qk_norm = QueryKeyNorm(config) if config.qk_norm else None

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], attention: Attend) -> Tensor:
        qkv = self.qkv_proj(x).view(x.shape[0], -1, self.head_dim)  # [N, Hq + 2 * Hkv, D]
        rotated = qkv[:, : self.num_rotated]
        if self.qk_norm is not None:
            rotated.copy_(self.qk_norm(rotated))
        rotate_(rotated, *rotary)
        attended = attention.attend(self.layer, qkv[:, : self.num_heads], qkv[:, self.num_heads :])
        out: Tensor = self.o_proj(attended)
        return out


class QueryKeyNorm(nn.Module):
    """Qwen3's per-head RMSNorm of queries and keys, the two weights stacked over heads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.size, self.eps = (config.head_dim,), config.rms_norm_eps
        heads = config.num_heads + config.num_kv_heads
        self.weight = nn.Parameter(torch.empty(heads, config.head_dim), requires_grad=False)

    def forward(self, heads: Tensor) -> Tensor:
        return F.rms_norm(heads, self.size, None, self.eps) * self.weight


class MLP(nn.Module):
    """SwiGLU with gate and up from one matrix."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, -1)
        out: Tensor = self.down_proj(F.silu(gate).mul_(up))
        return out


class DecoderLayer(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], attention: Attend) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotary, attention)
        mlp: Tensor = self.mlp(self.post_attention_layernorm(x))
        return mlp.add_(x)


class Decoder(nn.Module):
    """Token ids to normed hidden states, and hidden states to float32 logits."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, layer) for layer in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.rotary = RotaryEmbedding(config)

    def forward(self, token_ids: Tensor, positions: Tensor, attention: Attend, inputs: Tensor | None = None) -> Tensor:
        """Hidden states [N, hidden] of packed tokens [N]; `inputs` [N, hidden] stand in for their embeddings."""
        x: Tensor = self.embed_tokens(token_ids) if inputs is None else inputs
        rotary = self.rotary(positions)
        for layer in self.layers:
            x = layer(x, rotary, attention)
        hidden: Tensor = self.norm(x)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits [N, V]."""
        logits: Tensor = self.lm_head(hidden)
        return logits.float()
