from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.artifacts.causal_lm import CausalLM, LlamaShape
from engine.artifacts.conversation_batches import Corpus
from engine.artifacts.demo_training import completion_loss, exact_match
from engine.artifacts.muon import orthogonalise
from engine.artifacts.training_loop import Schedule, Trainer

SHAPE = LlamaShape(
    vocab_size=32, hidden_size=64, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=64, head_dim=32
)
SCHEDULE = Schedule(num_steps=150, learning_rate=0.03, num_warmup_steps=4)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Conversations `1 x 3 x 2`: the answer is the fourth token, equal to the second, and an end token."""
    values = torch.arange(64) % 20 + 10
    rows = [torch.tensor([1, value, 3, value, 2, *[4] * (value % 5)]) for value in values.tolist()]
    turns = [torch.tensor([0, 0, 0, 1, 1, *[0] * (len(row) - 5)]) for row in rows]
    offsets = torch.tensor([0, *[len(row) for row in rows]]).cumsum(0)
    tensors = {"ids": torch.cat(rows), "turns": torch.cat(turns), "tasks": torch.arange(64) % 4, "offsets": offsets}
    save_file(tensors, tmp_path / "corpus.safetensors")
    return Corpus(tmp_path / "corpus.safetensors")


def train(corpus: Corpus, trainer: Trainer, first: int, last: int) -> list[float]:
    batches = corpus.epochs(1024, seed=3)
    losses = []
    for step, batch in zip(range(last), batches, strict=False):
        if step >= first:
            loss = completion_loss(trainer.model, batch)
            trainer.update(loss, batch.ids.numel())
            losses.append(loss.item())
    return losses


def new_trainer() -> Trainer:
    torch.manual_seed(0)
    return Trainer(CausalLM(SHAPE), SCHEDULE)


def test_only_answer_tokens_are_targets(corpus: Corpus) -> None:
    batch = corpus.batch([0, 1])
    positions, wanted = batch.targets()
    assert wanted.tolist() == [10, 2, 11, 2]
    assert (positions % batch.ids.shape[1]).tolist() == [2, 3, 2, 3]


def test_batches_hold_every_conversation_once_within_the_token_limit(corpus: Corpus) -> None:
    batches = list(corpus.in_order(256))
    assert sum(len(batch.tasks) for batch in batches) == len(corpus)
    assert all(batch.ids.numel() <= 256 for batch in batches)


def test_training_lowers_the_loss_to_nearly_nothing(corpus: Corpus) -> None:
    trainer = new_trainer()
    losses = train(corpus, trainer, 0, 150)
    assert losses[-1] < 0.2 < losses[0]
    assert all(share > 0.8 for share, _ in exact_match(trainer.model, corpus, 64).values())


def test_a_resumed_run_ends_where_the_uninterrupted_one_does(corpus: Corpus, tmp_path: Path) -> None:
    whole, first, second = new_trainer(), new_trainer(), new_trainer()
    train(corpus, whole, 0, 12)
    train(corpus, first, 0, 6)
    first.save(tmp_path / "state.safetensors")
    second.resume(tmp_path / "state.safetensors")
    train(corpus, second, 6, 12)
    assert (second.step, second.num_tokens) == (whole.step, whole.num_tokens)
    for left, right in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(left, right)


def test_an_untrained_model_matches_nothing(corpus: Corpus) -> None:
    assert all(share < 0.2 for share, _ in exact_match(new_trainer().model, corpus, 64).values())


@pytest.mark.parametrize("shape", [(3, 16, 48), (2, 48, 16), (1, 32, 32)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    stack = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(stack))
    assert values.max() < 1.3
    assert values.median() > 0.6


def test_the_rate_warms_up_holds_and_decays_to_zero() -> None:
    schedule = Schedule(num_steps=100, learning_rate=1.0, num_warmup_steps=10, decay_from=0.5)
    assert schedule.rate(0) == pytest.approx(0.1)
    assert schedule.rate(30) == 1.0
    assert schedule.rate(75) == pytest.approx(0.5)
    assert schedule.rate(99) == pytest.approx(0.02)
