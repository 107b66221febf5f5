"""Initial weights that can copy: look-back heads, then heads that match the last two tokens. It does not know training.

A token's content lives in the first dimensions of the residual stream. Layer 0 writes a projection of the previous
token and of the one before into two further subspaces; layer 1 attends to places whose two preceding tokens equal the
current two, and copies what stands there (an induction head, Olsson et al. 2022).
"""

import torch
from torch import Tensor

from engine.artifacts.causal_lm import Attention, CausalLM

EMBEDDING_STD = 0.05
CONSTANT = 0.15
POSITION_GAIN = 4.2
NUM_POSITION_PAIRS = 6
MATCH_GAIN = 2.2
SECOND_MATCH_SHARE = 0.6
COPY_GAIN = 4 * 0.05
NUM_MATCH_PAIRS = 14


def _orthogonal_rows(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    square: Tensor = torch.linalg.qr(torch.randn(columns, columns, generator=generator)).Q
    return square[:rows]


def _slow_dimensions(head_dim: int) -> list[int]:
    """Head dimensions that hardly rotate over the context, where content can be compared."""
    half = head_dim // 2
    pairs = list(range(half - NUM_MATCH_PAIRS, half))
    return pairs + [pair + half for pair in pairs]


def _position_vector(model: CausalLM, back: int) -> Tensor:
    """A query such that, rotated, it agrees most with the key ``back`` tokens earlier (fast pairs only)."""
    shape = model.shape
    half = shape.head_dim // 2
    rates = shape.rope_theta ** -(torch.arange(half, dtype=torch.float32) / half)
    rates, used = rates * back, torch.arange(half) < NUM_POSITION_PAIRS
    return torch.cat((rates.cos() * used, -rates.sin() * used))


def _look_back(model: CausalLM, attention: Attention, spaces: list[slice], read: Tensor) -> None:
    """Heads 0 and 1 attend one and two tokens back and write ``read`` of what they see into ``spaces``."""
    dim = model.shape.head_dim
    width = read.shape[0]
    attention.q_proj.weight[: 2 * dim] = 0
    attention.k_proj.weight[:dim] = 0
    attention.k_proj.weight[:dim, 0] = POSITION_GAIN / 2 * _position_vector(model, 0)
    attention.v_proj.weight[:dim] = 0
    attention.v_proj.weight[:width] = read
    attention.o_proj.weight[:, : 2 * dim] = 0
    for head, space in enumerate(spaces):
        attention.q_proj.weight[head * dim : (head + 1) * dim, 0] = POSITION_GAIN * _position_vector(model, head + 1)
        attention.o_proj.weight[space, head * dim : head * dim + width] = torch.eye(width) * EMBEDDING_STD * 2


def _match(model: CausalLM, attention: Attention, spaces: list[slice], read: Tensor, copies: Tensor) -> None:
    """Every head compares (current, previous) with (previous, one before) of each place and copies its content."""
    dim, width = model.shape.head_dim, read.shape[0]
    rows = torch.tensor(_slow_dimensions(dim))
    second = _orthogonal_rows(width, width, torch.Generator().manual_seed(2))
    group = model.shape.num_heads // model.shape.num_kv_heads
    attention.q_proj.weight.zero_()
    attention.k_proj.weight.zero_()
    for head in range(model.shape.num_heads):
        attention.q_proj.weight[rows + head * dim] += MATCH_GAIN * read
        attention.q_proj.weight[rows + head * dim, spaces[0]] += MATCH_GAIN * SECOND_MATCH_SHARE * second
    for head in range(model.shape.num_kv_heads):
        attention.k_proj.weight[rows + head * dim, spaces[0]] += MATCH_GAIN * torch.eye(width)
        attention.k_proj.weight[rows + head * dim, spaces[1]] += MATCH_GAIN * second
        content = copies[head * dim : (head + 1) * dim]
        attention.v_proj.weight[head * dim : (head + 1) * dim] = content
        for query in range(head * group, (head + 1) * group):
            attention.o_proj.weight[:, query * dim : (query + 1) * dim] = content.T * COPY_GAIN / group


@torch.no_grad()
def initialise_copying(model: CausalLM, seed: int) -> None:
    """Overwrite the embedding and the first two layers' attention with a two-token induction circuit."""
    generator = torch.Generator().manual_seed(seed)
    width, hidden = 2 * NUM_MATCH_PAIRS, model.shape.hidden_size
    content = hidden - 2 * width
    spaces = [slice(content, content + width), slice(content + width, hidden)]
    embedding = model.model.embed_tokens.weight
    embedding.copy_(torch.randn(embedding.shape, generator=generator) * EMBEDDING_STD)
    embedding[:, content:] *= 0.1
    embedding[:, 0] = CONSTANT
    read = torch.zeros(width, hidden)
    read[:, 1:content] = _orthogonal_rows(width, content - 1, generator)
    copies = torch.zeros(min(content - 1, model.shape.num_kv_heads * model.shape.head_dim), hidden)
    copies[:, 1:content] = _orthogonal_rows(len(copies), content - 1, generator)
    attentions = [module for module in model.modules() if isinstance(module, Attention)]
    _look_back(model, attentions[0], spaces, read)
    _match(model, attentions[1], spaces, read, copies)
