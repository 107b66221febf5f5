"""Heads learn what the target says next, and the engine loads what was saved."""

import argparse
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.artifacts.causal_lm import CausalLM, LlamaShape
from engine.artifacts.conversation_batches import Batch, Corpus
from engine.artifacts.head_models import EagleHead, MedusaHeads
from engine.artifacts.head_training import (
    eagle_agreement,
    eagle_loss,
    medusa_agreement,
    medusa_loss,
    tokens_ahead,
    train,
)
from engine.artifacts.training_loop import Log
from engine.bundled.head_loader import load_eagle_head, load_medusa_heads
from engine.bundled.loader import LoadedModel
from engine.bundled.model_config import ModelConfig, RopeScaling
from engine.bundled.transformer import Decoder

SHAPE = LlamaShape(
    vocab_size=32, hidden_size=64, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=64, head_dim=32
)
CONFIG = ModelConfig(
    architecture="LlamaForCausalLM",
    num_layers=1,
    hidden_size=64,
    intermediate_size=64,
    num_heads=2,
    num_kv_heads=1,
    head_dim=32,
    vocab_size=32,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    rope=RopeScaling(theta=1e5),
    tie_word_embeddings=True,
    qkv_bias=False,
    output_bias=False,
    qk_norm=False,
    dtype="bfloat16",
    eos_token_ids=(2,),
    stored_formats={},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Answers that count up from the prompt's last token, as every stage's corpus."""
    starts = (torch.arange(64) % 12 + 8).tolist()
    ids = [torch.tensor([1, start, *range(start + 1, start + 7), 2]) for start in starts]
    turns = [torch.tensor([0, 0, *[1] * 7])] * 64
    offsets = torch.arange(65) * 9
    tensors = {"ids": torch.cat(ids), "turns": torch.cat(turns), "tasks": torch.arange(64) % 2, "offsets": offsets}
    for stage in ("stage0", "stage1", "stage2", "greedy"):
        save_file(tensors, tmp_path / f"{stage}.safetensors")
    return tmp_path


@pytest.fixture
def target() -> CausalLM:
    torch.manual_seed(0)
    return CausalLM(SHAPE).bfloat16().requires_grad_(False)


def arguments(folder: Path) -> argparse.Namespace:
    return argparse.Namespace(corpus=folder, learning_rate=0.02, batch_tokens=512, seed=3)


def test_tokens_ahead_stay_in_their_answer() -> None:
    batch = Batch(
        ids=torch.tensor([[1, 5, 6, 7, 2, 9, 8]]),
        turns=torch.tensor([[0, 0, 1, 1, 1, 0, 2]]),
        tasks=torch.tensor([0]),
    )
    assert [part.tolist() for part in tokens_ahead(batch, 2)] == [[1, 2], [7, 2]]
    assert [part.tolist() for part in tokens_ahead(batch, 3)] == [[1], [2]]


def test_medusa_heads_learn_and_are_loaded(folder: Path, target: CausalLM, tmp_path: Path) -> None:
    heads, greedy = MedusaHeads(target, 2), Corpus(folder / "greedy.safetensors")
    train(heads, lambda batch: medusa_loss(heads, target, batch), steps=150, args=arguments(folder), log=Log())
    assert all(share > 0.9 for shares in medusa_agreement(heads, target, greedy).values() for share in shares)
    heads.save(tmp_path / "medusa")
    loaded = load_medusa_heads(tmp_path / "medusa", served(target))
    states = torch.randn(5, 64).bfloat16()
    expected = torch.stack([head(states) for head in heads.each()]).float()
    assert torch.allclose(loaded(states, 2), expected, atol=0.05, rtol=0.05)


def test_an_eagle_head_learns_and_is_loaded(folder: Path, target: CausalLM, tmp_path: Path) -> None:
    head, greedy = EagleHead(target), Corpus(folder / "greedy.safetensors")
    train(head, lambda batch: eagle_loss(head, target, batch), steps=60, args=arguments(folder), log=Log())
    assert all(len(shares) == 2 for shares in eagle_agreement(head, target, greedy).values())
    first = eagle_loss(EagleHead(target).bfloat16(), target, greedy.batch([0, 1, 2, 3]))
    assert eagle_loss(head, target, greedy.batch([0, 1, 2, 3])) < 0.5 * first
    head.save(tmp_path / "eagle", {"bos": 1, "eos": 2, "pad": 0})
    paged, inputs = load_eagle_head(tmp_path / "eagle", served(target), max_positions=64)
    assert paged.config.num_layers == 1
    token_ids, features = torch.tensor([3, 4]), torch.randn(2, 64).bfloat16()
    mixed = head.fc(torch.cat((target.model.embed_tokens(token_ids), features), -1))
    assert torch.allclose(inputs(token_ids, features).float(), mixed.float(), atol=0.02)


def served(target: CausalLM) -> LoadedModel:
    """The target as the engine holds it; only its embedding matters to the heads."""
    decoder = Decoder(CONFIG).bfloat16()
    decoder.embed_tokens.weight = target.model.embed_tokens.weight
    return LoadedModel(CONFIG, decoder, torch.bfloat16)
