"""Trains Medusa and EAGLE heads on a frozen target, so that they guess its next tokens. It does not know serving.

First on the corpora's answers, then on the target's own greedy answers, as the draft is.
Run ``python -m engine.artifacts.head_training --corpus build/demo --models workloads/demo/models``.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.artifacts.causal_lm import CausalLM
from engine.artifacts.conversation_batches import Batch, Corpus
from engine.artifacts.demo_training import EVAL_BATCH_TOKENS, TASK_NAMES, staged_batches
from engine.artifacts.distillation import STAGE_SHARES, prepare_greedy_answers
from engine.artifacts.head_models import EagleHead, MedusaHeads
from engine.artifacts.hugging_face_folder import load_folder, special_ids
from engine.artifacts.training_loop import Log, Schedule, Trainer

NUM_MEDUSA_HEADS = 3
NUM_EAGLE_PASSES = 2  # the later ones read features of the head itself, as drafting does (Zhang et al. 2024, HASS)
FEATURE_SHARE = 0.1  # of the features' smooth L1 distance in the EAGLE loss (Li et al. 2024)


class Ahead(NamedTuple):
    """Places (flat) whose token `distance` places on is of the same answer, and that token."""

    places: Tensor
    token_ids: Tensor


def tokens_ahead(batch: Batch, distance: int) -> Ahead:
    """For heads that guess `distance` tokens on: from the last prompt token of each answer to near its end."""
    own, wanted = torch.zeros_like(batch.turns), torch.zeros_like(batch.turns)
    own[:, :-1] = batch.turns[:, 1:]
    wanted[:, :-distance] = batch.turns[:, distance:]
    places = ((own > 0) & (own == wanted)).flatten().nonzero().squeeze(1)
    return Ahead(places, batch.ids.flatten()[places + distance])


def medusa_loss(heads: MedusaHeads, target: CausalLM, batch: Batch) -> Tensor:
    """Mean cross-entropy over the heads, the nearer ones weighing more (0.8 a place, Cai et al. 2024)."""
    with torch.no_grad():
        states = target.hidden_states(batch.ids).flatten(0, 1)
    losses, weights = [], []
    for number, head in enumerate(heads.each()):
        ahead = tokens_ahead(batch, number + 2)
        losses.append(0.8**number * functional.cross_entropy(head(states[ahead.places]).float(), ahead.token_ids))
        weights.append(0.8**number)
    return torch.stack(losses).sum() / sum(weights)


def eagle_loss(head: EagleHead, target: CausalLM, batch: Batch) -> Tensor:
    """KL(target || head) of the next token and the features' distance, over passes that read ever more own features."""
    places, _ = batch.targets()
    with torch.no_grad():
        embeddings, features = target.model.embed_tokens(batch.ids), target.hidden_states(batch.ids)
        wanted = target.logits(features.flatten(0, 1)[places]).float().log_softmax(-1)
    read, losses = features, []
    for _ in range(NUM_EAGLE_PASSES):
        guessed = head(embeddings, read)
        given = target.logits(guessed.flatten(0, 1)[places]).float().log_softmax(-1)
        divergence = functional.kl_div(given, wanted, reduction="batchmean", log_target=True)
        true = features.flatten(0, 1)[places]
        distance = functional.smooth_l1_loss(guessed.flatten(0, 1)[places].float(), true.float())
        losses.append(divergence + FEATURE_SHARE * distance)
        read = guessed
    return torch.stack(losses).mean()


@torch.no_grad()
def medusa_agreement(heads: MedusaHeads, target: CausalLM, greedy: Corpus) -> dict[str, list[float]]:
    """By task: the share of each head's guesses that are what the target said."""
    hits: dict[str, list[list[Tensor]]] = {}
    for batch in greedy.in_order(EVAL_BATCH_TOKENS):
        states = target.hidden_states(batch.ids).flatten(0, 1)
        for number, head in enumerate(heads.each()):
            ahead = tokens_ahead(batch, number + 2)
            right = head(states[ahead.places]).argmax(-1) == ahead.token_ids
            _sort_by_task(hits, batch, ahead.places, right, number, heads.num_heads)
    return _shares(hits)


@torch.no_grad()
def eagle_agreement(head: EagleHead, target: CausalLM, greedy: Corpus) -> dict[str, list[float]]:
    """By task: the share of guesses that are what the target said, from true features and from the head's own."""
    hits: dict[str, list[list[Tensor]]] = {}
    for batch in greedy.in_order(EVAL_BATCH_TOKENS):
        places, wanted = batch.targets()
        embeddings = target.model.embed_tokens(batch.ids)
        read = target.hidden_states(batch.ids)
        for number in range(NUM_EAGLE_PASSES):
            read = head(embeddings, read)
            right = target.logits(read.flatten(0, 1)[places]).argmax(-1) == wanted
            _sort_by_task(hits, batch, places, right, number, NUM_EAGLE_PASSES)
    return _shares(hits)


def _sort_by_task(
    hits: dict[str, list[list[Tensor]]], batch: Batch, places: Tensor, right: Tensor, number: int, count: int
) -> None:
    tasks = batch.tasks[places // batch.ids.shape[1]]
    for task in set(tasks.tolist()):
        hits.setdefault(TASK_NAMES[task], [[] for _ in range(count)])[number].append(right[tasks == task])


def _shares(hits: dict[str, list[list[Tensor]]]) -> dict[str, list[float]]:
    return {
        task: [round(torch.cat(parts).float().mean().item(), 3) for parts in numbers if parts]
        for task, numbers in hits.items()
    }


def train(
    head: nn.Module, loss_of: Callable[[Batch], Tensor], *, steps: int, args: argparse.Namespace, log: Log
) -> None:
    """Update `head` on the corpora of the draft's training."""
    trainer = Trainer(head, Schedule(num_steps=steps, learning_rate=args.learning_rate))
    head.bfloat16()  # as it is served; the trainer keeps float32 masters
    batches: Iterator[Batch] = staged_batches(
        args.corpus, STAGE_SHARES, num_steps=steps, start=0, max_tokens=args.batch_tokens, seed=args.seed + 2
    )
    losses = []
    for batch in batches:
        loss = loss_of(batch)
        trainer.update(loss, batch.ids.numel())
        losses.append(loss.item())
        if trainer.step % 50 == 0:
            log.write(step=trainer.step, tokens=trainer.num_tokens, loss=round(sum(losses) / len(losses), 4))
            losses.clear()


def main() -> None:
    """Parse arguments, train both kinds of heads and save them beside the target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("build/demo"))
    parser.add_argument("--models", type=Path, default=Path("workloads/demo/models"))
    parser.add_argument("--medusa-steps", type=int, default=400)
    parser.add_argument("--eagle-steps", type=int, default=400)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--num-conversations", type=int, default=1000)
    parser.add_argument("--num-eval", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    log, target = Log(), load_folder(args.models / "target").requires_grad_(False)
    prepare_greedy_answers(target, args, log)
    held_out = Corpus(args.corpus / "greedy-eval.safetensors")
    medusa = MedusaHeads(target, NUM_MEDUSA_HEADS)
    train(medusa, lambda batch: medusa_loss(medusa, target, batch), steps=args.medusa_steps, args=args, log=log)
    log.write(heads="medusa", agreement=medusa_agreement(medusa, target, held_out))
    medusa.save(args.models / "medusa")
    eagle = EagleHead(target)
    train(eagle, lambda batch: eagle_loss(eagle, target, batch), steps=args.eagle_steps, args=args, log=log)
    log.write(heads="eagle", agreement=eagle_agreement(eagle, target, held_out))
    eagle.save(args.models / "eagle", special_ids(args.corpus / "tokenizer"))


if __name__ == "__main__":
    main()
