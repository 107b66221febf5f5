"""Distils a small draft from a trained target, so that it guesses the target's next tokens. It does not know serving.

First on the corpora's answers with the target's distributions, then on the target's own greedy answers (on-policy).
Run ``python -m engine.artifacts.distillation --corpus build/demo --models workloads/demo/models``.
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
from engine.artifacts.demo_training import EVAL_BATCH_TOKENS, TASK_NAMES, VOCAB_SIZE, new_model, staged_batches
from engine.artifacts.greedy_answers import write_greedy_answers
from engine.artifacts.hugging_face_folder import load_folder, save_folder, special_ids
from engine.artifacts.training_loop import Log, Schedule, Trainer

DRAFT_SHAPE = LlamaShape(
    vocab_size=VOCAB_SIZE, hidden_size=192, num_layers=2, num_heads=4, num_kv_heads=2, intermediate_size=512
)
STAGE_SHARES = (("stage0", 0.1), ("stage1", 0.2), ("stage2", 0.3), ("greedy", 0.4))
DIVERGENCE_SHARE = 0.7


def answer_logits(model: CausalLM, batch: Batch) -> Tensor:
    """Logits [answer tokens, vocab] of every answer token's predecessor."""
    positions, _ = batch.targets()
    return model.logits(model.hidden_states(batch.ids).flatten(0, 1)[positions]).float()


def distillation_loss(draft: CausalLM, target: CausalLM, batch: Batch) -> Tensor:
    """KL(target || draft) and the cross-entropy of the target's greedy choice, weighted."""
    with torch.no_grad():
        wanted = answer_logits(target, batch)
    given = answer_logits(draft, batch)
    divergence = functional.kl_div(
        given.log_softmax(-1), wanted.log_softmax(-1), reduction="batchmean", log_target=True
    )
    choice = functional.cross_entropy(given, wanted.argmax(-1))
    return DIVERGENCE_SHARE * divergence + (1 - DIVERGENCE_SHARE) * choice


@torch.no_grad()
def greedy_agreement(draft: CausalLM, greedy: Corpus) -> dict[str, tuple[float, int]]:
    """Share of the target's greedy tokens that are also the draft's greedy choice, and their number, by task."""
    agreed: dict[str, list[Tensor]] = defaultdict(list)
    for batch in greedy.in_order(EVAL_BATCH_TOKENS):
        positions, wanted = batch.targets()
        hits = answer_logits(draft, batch).argmax(-1) == wanted
        tasks = batch.tasks[positions // batch.ids.shape[1]]
        for task in set(tasks.tolist()):
            agreed[TASK_NAMES[task]].append(hits[tasks == task])
    joined = {task: torch.cat(parts).float() for task, parts in agreed.items()}
    return {task: (round(hits.mean().item(), 4), len(hits)) for task, hits in joined.items()}


def prepare_greedy_answers(target: CausalLM, args: argparse.Namespace, log: Log) -> None:
    """Let the target answer training and evaluation prompts, unless it already has."""
    end = special_ids(args.corpus / "tokenizer")["eos"]
    jobs = {"greedy": ("stage3", args.num_conversations), "greedy-eval": ("eval", args.num_eval)}
    for name, (source, count) in jobs.items():
        path, corpus = args.corpus / f"{name}.safetensors", Corpus(args.corpus / f"{source}.safetensors")
        if not path.exists():
            rows = range(min(count, len(corpus)))
            log.write(file=name, answers=write_greedy_answers(target, corpus, path, rows=rows, end=end))


def train_draft(target: CausalLM, args: argparse.Namespace, log: Log) -> CausalLM:
    """The whole run of the draft."""
    draft = new_model(DRAFT_SHAPE, args.seed)
    trainer = Trainer(draft, Schedule(num_steps=args.steps, learning_rate=args.learning_rate))
    draft.bfloat16()  # as it is served; the trainer keeps float32 masters
    held_out = Corpus(args.corpus / "greedy-eval.safetensors")
    losses = []
    batches: Iterator[Batch] = staged_batches(
        args.corpus, STAGE_SHARES, num_steps=args.steps, start=0, max_tokens=args.batch_tokens, seed=args.seed + 1
    )
    for batch in batches:
        loss = distillation_loss(draft, target, batch)
        trainer.update(loss, batch.ids.numel())
        losses.append(loss.item())
        if trainer.step % 50 == 0:
            log.write(step=trainer.step, tokens=trainer.num_tokens, loss=round(sum(losses) / len(losses), 4))
            losses.clear()
        if trainer.step % args.eval_every == 0 or trainer.step == args.steps:
            log.write(step=trainer.step, agreement=greedy_agreement(draft, held_out))
            save_folder(draft, args.corpus / "tokenizer", args.corpus / "draft")
    return draft


def main() -> None:
    """Parse arguments, distil and save the draft."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("build/demo"))
    parser.add_argument("--models", type=Path, default=Path("workloads/demo/models"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--learning-rate", type=float, default=0.004)
    parser.add_argument("--num-conversations", type=int, default=1000)
    parser.add_argument("--num-eval", type=int, default=100)
    parser.add_argument("--eval-every", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    log, target = Log(), load_folder(args.models / "target")
    prepare_greedy_answers(target, args, log)
    save_folder(train_draft(target, args, log), args.corpus / "tokenizer", args.models / "draft")


if __name__ == "__main__":
    main()
