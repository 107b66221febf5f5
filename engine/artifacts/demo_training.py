"""Trains the demo's target model. It does not know how the corpora were made.

Run ``python -m engine.artifacts.demo_training --corpus build/demo --out workloads/demo/models``.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from engine.artifacts.causal_lm import CausalLM, LlamaShape
from engine.artifacts.conversation_batches import Batch, Corpus
from engine.artifacts.hugging_face_folder import load_folder, save_folder
from engine.artifacts.induction import initialise_copying
from engine.artifacts.training_loop import Log, Schedule, Trainer

VOCAB_SIZE = 1280
TARGET_SHAPE = LlamaShape(
    vocab_size=VOCAB_SIZE, hidden_size=256, num_layers=6, num_heads=4, num_kv_heads=2, intermediate_size=768
)
Shares = tuple[tuple[str, float], ...]
STAGE_SHARES: Shares = (("stage0", 0.05), ("stage1", 0.22), ("stage2", 0.38), ("stage3", 0.35))
TASK_NAMES = ("extraction", "edit", "table", "text")
EVAL_BATCH_TOKENS = 8192


def completion_loss(model: CausalLM, batch: Batch) -> Tensor:
    """Mean cross-entropy of the answers' tokens."""
    positions, wanted = batch.targets()
    states = model.hidden_states(batch.ids).flatten(0, 1)[positions]
    return functional.cross_entropy(model.logits(states).float(), wanted)


@torch.no_grad()
def exact_match(model: CausalLM, corpus: Corpus, limit: int) -> dict[str, tuple[float, int]]:
    """By task, of the first conversations: the share of answers that are greedy token for token, and their number."""
    hits: dict[str, list[bool]] = defaultdict(list)
    for batch in corpus.in_order(EVAL_BATCH_TOKENS, limit):
        positions, wanted = batch.targets()
        states = model.hidden_states(batch.ids).flatten(0, 1)[positions]
        wrong = torch.zeros_like(batch.ids).flatten()
        wrong[positions + 1] = (model.logits(states).argmax(-1) != wanted).long()
        wrong = wrong.view_as(batch.ids)
        for row, task in enumerate(batch.tasks.tolist()):
            for turn in range(1, int(batch.turns[row].max()) + 1):
                hits[TASK_NAMES[task]].append(not wrong[row][batch.turns[row] == turn].any())
    return {task: (sum(found) / len(found), len(found)) for task, found in hits.items()}


def staged_batches(
    folder: Path, shares: Shares, *, num_steps: int, start: int, max_tokens: int, seed: int
) -> Iterator[Batch]:
    """The batches of steps ``start`` to ``num_steps``, stage after stage."""
    bound = 0.0
    for number, (stage, share) in enumerate(shares):
        bound += share * num_steps
        if start >= round(bound):
            continue
        batches = Corpus(folder / f"{stage}.safetensors").epochs(max_tokens, seed + 1000 * number + start)
        for _ in range(round(bound) - start):
            yield next(batches)
        start = round(bound)


def new_model(shape: LlamaShape, seed: int) -> CausalLM:
    """An untrained model that can copy."""
    torch.manual_seed(seed)
    model = CausalLM(shape)
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter.data.mul_(0.25)
    initialise_copying(model, seed)
    return model


def train_target(args: argparse.Namespace, log: Log) -> None:
    """The whole run: batches, updates, evaluations, checkpoints."""
    model = load_folder(args.init).float() if args.init else new_model(TARGET_SHAPE, args.seed)
    trainer = Trainer(model, Schedule(num_steps=args.steps, learning_rate=args.learning_rate))
    model.bfloat16()  # as it is served; the trainer keeps float32 masters
    checkpoint = args.corpus / f"{args.name}.safetensors"
    if checkpoint.exists():
        trainer.resume(checkpoint)
    held_out = Corpus(args.corpus / "eval.safetensors")
    batches = staged_batches(
        args.corpus,
        STAGE_SHARES,
        num_steps=args.steps,
        start=trainer.step,
        max_tokens=args.batch_tokens,
        seed=args.seed,
    )
    losses = []
    for batch in batches:
        loss = completion_loss(model, batch)
        trainer.update(loss, batch.ids.numel())
        losses.append(loss.item())
        if trainer.step % 20 == 0:
            log.write(step=trainer.step, tokens=trainer.num_tokens, loss=round(sum(losses) / len(losses), 4))
            losses.clear()
        if trainer.step % args.eval_every == 0 or trainer.step == args.steps:
            log.write(step=trainer.step, exact_match=exact_match(model, held_out, args.num_eval))
            trainer.save(checkpoint)
            save_folder(model, args.corpus / "tokenizer", args.corpus / args.name)
    save_folder(model, args.corpus / "tokenizer", args.out / "target")


def main() -> None:
    """Parse arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("build/demo"))
    parser.add_argument("--out", type=Path, default=Path("workloads/demo/models"))
    parser.add_argument("--init", type=Path, help="a folder of weights to start from; default: an untrained model")
    parser.add_argument("--name", default="target")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--learning-rate", type=float, default=0.005)
    parser.add_argument("--eval-every", type=int, default=300)
    parser.add_argument("--num-eval", type=int, default=150)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train_target(args, Log())


if __name__ == "__main__":
    main()
