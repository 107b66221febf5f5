"""A compact trainable Llama in plain torch, equal to Hugging Face's ``LlamaForCausalLM``. It does not know training."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class LlamaShape:
    """The sizes of a Llama; heads are grouped evenly over key-value heads."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    intermediate_size: int
    head_dim: int = 64
    rope_theta: float = 1e5
    max_positions: int = 1024
    norm_eps: float = 1e-5


def rotary_tables(shape: LlamaShape, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of shape [length, head_dim], the two halves equal (rotate-half convention)."""
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
    angles = torch.outer(torch.arange(length, dtype=torch.float32), shape.rope_theta**-exponents)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of ``x`` [..., length, head_dim]."""
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-high, low), dim=-1) * sin


class RMSNorm(nn.Module):
    """Root-mean-square norm with a gain."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension in fp32."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class KeyValues:
    """Keys and values of one layer's earlier tokens, for decoding."""

    def __init__(self) -> None:
        self.key = self.value = torch.empty(0)

    def __len__(self) -> int:
        return self.key.shape[2] if self.key.numel() else 0

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append [batch, kv, length, dim] and return everything so far."""
        self.key = torch.cat((self.key, key), dim=2) if len(self) else key
        self.value = torch.cat((self.value, value), dim=2) if self.value.numel() else value
        return self.key, self.value


class Attention(nn.Module):
    """Causal grouped-query attention with explicit scores (on a CPU faster than the fused kernel in bf16)."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.shape = shape
        query, key = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, query, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, key, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, key, bias=False)
        self.o_proj = nn.Linear(query, shape.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, past: KeyValues | None = None) -> Tensor:
        """``x`` is [batch, length, hidden]; ``mask`` [length, total] is 0 where allowed and -inf elsewhere."""
        batch, length, _ = x.shape
        kv, dim = self.shape.num_kv_heads, self.shape.head_dim
        query = rotate(self.q_proj(x).view(batch, length, -1, dim).transpose(1, 2), cos, sin)
        key = rotate(self.k_proj(x).view(batch, length, kv, dim).transpose(1, 2), cos, sin)
        value = self.v_proj(x).view(batch, length, kv, dim).transpose(1, 2)
        if past is not None:
            key, value = past.extend(key, value)
        # Query heads of one group are folded into the length: [batch, kv, group * length, dim].
        scores = (query.reshape(batch, kv, -1, dim) * dim**-0.5) @ key.transpose(2, 3)
        scores = scores.view(batch, kv, -1, length, key.shape[2]) + mask
        mixed = scores.softmax(-1).view(batch, kv, -1, key.shape[2]) @ value
        mixed = mixed.view(batch, -1, length, dim).transpose(1, 2).reshape(batch, length, -1)
        return self.o_proj(mixed)  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """The gated SiLU feed-forward."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., hidden] to [..., hidden]."""
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """One pre-norm decoder layer."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.norm_eps)
        self.mlp = FeedForward(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, past: KeyValues | None = None) -> Tensor:
        """Add attention, then the feed-forward, to the residual stream."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask, past)
        return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Embedding, layers and the final norm; parameter names are Hugging Face's."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.num_layers))
        self.norm = RMSNorm(shape.hidden_size, shape.norm_eps)


class CausalLM(nn.Module):
    """A Llama with tied embeddings."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Decoder(shape)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def hidden_states(self, ids: Tensor, past: list[KeyValues] | None = None) -> Tensor:
        """Final normed states [batch, length, hidden] of ``ids`` [batch, length], which follow the ``past`` tokens."""
        start, length = len(past[0]) if past else 0, ids.shape[1]
        x = self.model.embed_tokens(ids)
        cos, sin = (table[start:].to(x) for table in rotary_tables(self.shape, start + length))
        mask = torch.full((length, start + length), float("-inf"), dtype=x.dtype, device=x.device).triu(start + 1)
        for number, layer in enumerate(self.model.layers):
            x = layer(x, cos, sin, mask, past[number] if past else None)
        return self.model.norm(x)  # type: ignore[no-any-return]

    def logits(self, states: Tensor) -> Tensor:
        """Next-token logits of final states, by the tied embedding."""
        return functional.linear(states, self.model.embed_tokens.weight)

    def forward(self, ids: Tensor) -> Tensor:
        """Next-token logits [batch, length, vocab]."""
        return self.logits(self.hidden_states(ids))
