"""Initial weights that can copy: look-back heads, then heads that match the last tokens. It does not know training.

A token's content lives in the first dimensions of the residual stream. Layer 0 writes a projection of each of the last
four tokens into a subspace of its own; layer 1 attends to places whose preceding tokens equal the current ones, and
copies what stands there (an induction head, Olsson et al. 2022). Several tokens are matched so that copying goes on
after a word that was changed.
"""

import torch
from torch import Tensor

from engine.artifacts.causal_lm import Attention, CausalLM

EMBEDDING_STD = 0.05
CONSTANT = 0.15
POSITION_GAIN = 4.2
NUM_POSITION_PAIRS = 6
MATCH_GAIN = 2.2
NUM_BACK = 4
EARLIER_GAINS = (1.6, 1.4, 1.2)
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
    """Head ``h`` attends ``h + 1`` tokens back and writes ``read`` of what it sees into ``spaces[h]``."""
    dim, width = model.shape.head_dim, read.shape[0]
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
        projection.weight.zero_()
    for head in range(model.shape.num_kv_heads):
        attention.k_proj.weight[head * dim : (head + 1) * dim, 0] = POSITION_GAIN / 2 * _position_vector(model, 0)
        attention.v_proj.weight[head * dim : head * dim + width] = read
    for head, space in enumerate(spaces):
        attention.q_proj.weight[head * dim : (head + 1) * dim, 0] = POSITION_GAIN * _position_vector(model, head + 1)
        attention.o_proj.weight[space, head * dim : head * dim + width] = torch.eye(width) * EMBEDDING_STD * 2


def _match(model: CausalLM, attention: Attention, spaces: list[slice], read: Tensor, copies: Tensor) -> None:
    """Every head compares the last tokens here with those before each place, and copies what stands there."""
    dim, width = model.shape.head_dim, read.shape[0]
    rows = torch.tensor(_slow_dimensions(dim))
    group = model.shape.num_heads // model.shape.num_kv_heads
    generator = torch.Generator().manual_seed(2)
    turns = [_orthogonal_rows(width, width, generator) for _ in spaces]
    attention.q_proj.weight.zero_()
    attention.k_proj.weight.zero_()
    for head in range(model.shape.num_heads):
        attention.q_proj.weight[rows + head * dim] += MATCH_GAIN * turns[0] @ read
        for gain, turn, space in zip(EARLIER_GAINS, turns[1:], spaces, strict=False):
            attention.q_proj.weight[rows + head * dim, space] += gain * turn
    for head in range(model.shape.num_kv_heads):
        for turn, space in zip(turns, spaces, strict=True):
            attention.k_proj.weight[rows + head * dim, space] += MATCH_GAIN * turn
        content = copies[head * dim : (head + 1) * dim]
        attention.v_proj.weight[head * dim : head * dim + len(content)] = content
        for query in range(head * group, (head + 1) * group):
            piece = slice(query * dim, query * dim + len(content))
            attention.o_proj.weight[:, piece] = content.T * COPY_GAIN / group


@torch.no_grad()
def initialise_copying(model: CausalLM, seed: int) -> None:
    """Overwrite the embedding and the first two layers' attention with an induction circuit over several tokens."""
    generator = torch.Generator().manual_seed(seed)
    width, hidden = 2 * NUM_MATCH_PAIRS, model.shape.hidden_size
    content = hidden - NUM_BACK * width
    spaces = [slice(start, start + width) for start in range(content, hidden, width)]
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
