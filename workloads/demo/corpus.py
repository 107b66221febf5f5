"""Writes the tokenizer and the training corpora of the demo models. It does not know models or training.

Run ``python -m workloads.demo.corpus --out build/demo``.
"""

import argparse
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from workloads.demo.conversation import TASK_NAMES, Conversation, TaskName
from workloads.demo.tasks import FULL_SIZE, draw_conversation
from workloads.demo.tokenizer import ASSISTANT, BOS, END, build_tokenizer, save_tokenizer

TRAINING_MIX: Mapping[TaskName, float] = {"extraction": 0.26, "edit": 0.4, "table": 0.26, "text": 0.08}
NUM_TOKENIZER_TEXTS = 6000
STAGE_SIZES = {"stage0": 0, "stage1": 1, "stage2": 2, "stage3": 3}
BLOCK = 4096


def render(conversation: Conversation) -> str:
    """The conversation as text, equal to the chat template's rendering."""
    messages = conversation.full_messages()
    return BOS + "".join(f"<|{message['role']}|>{message['content']}{END}" for message in messages)


def answer_turns(ids: np.ndarray, assistant: int, end: int) -> np.ndarray:
    """For every token the 1-based turn whose answer it belongs to (its end token included), else 0."""
    turns = np.zeros(len(ids), dtype=np.uint8)
    ends = np.flatnonzero(ids == end)
    for turn, start in enumerate(np.flatnonzero(ids == assistant), start=1):
        stop = ends[np.searchsorted(ends, start)]
        turns[start + 1 : stop + 1] = turn
    return turns


def encode(tokenizer: Tokenizer, conversations: list[Conversation]) -> dict[str, np.ndarray]:
    """Token ids, answer turns and task numbers of the conversations, concatenated; ``offsets`` cut them apart."""
    encodings = tokenizer.encode_batch([render(item) for item in conversations], add_special_tokens=False)
    ids = [np.asarray(item.ids, dtype=np.int32) for item in encodings]
    assistant, end = (tokenizer.encode(token, add_special_tokens=False).ids[0] for token in (ASSISTANT, END))
    return {
        "ids": np.concatenate(ids),
        "turns": np.concatenate([answer_turns(row, assistant, end) for row in ids]),
        "offsets": np.cumsum([0, *map(len, ids)]).astype(np.int64),
        "tasks": np.asarray([TASK_NAMES.index(item.task) for item in conversations], dtype=np.uint8),
    }


def draw_corpus(tokenizer: Tokenizer, *, seed: str, count: int, size: int) -> dict[str, np.ndarray]:
    """``count`` encoded conversations of the training mix."""
    rng = random.Random(seed)
    blocks = []
    for start in range(0, count, BLOCK):
        drawn = [draw_conversation(rng, TRAINING_MIX, size) for _ in range(min(BLOCK, count - start))]
        blocks.append(encode(tokenizer, drawn))
    return _join(blocks)


def _join(blocks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    joined = {name: np.concatenate([block[name] for block in blocks]) for name in ("ids", "turns", "tasks")}
    lengths = np.concatenate([np.diff(block["offsets"]) for block in blocks])
    return {**joined, "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)}


def new_tokenizer(seed: int) -> Tokenizer:
    """A tokenizer for the words of conversations drawn for it alone."""
    rng = random.Random(f"{seed}-tokenizer")
    drawn = [draw_conversation(rng, TRAINING_MIX) for _ in range(NUM_TOKENIZER_TEXTS)]
    return build_tokenizer([message["content"] for item in drawn for message in item.full_messages()])


def write_corpus(
    out: Path, *, seed: int, counts: Mapping[str, int], num_eval: int, tokenizer_file: Path | None = None
) -> None:
    """Write ``tokenizer/``, one safetensors file a stage, and an evaluation file of other conversations."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file)) if tokenizer_file else new_tokenizer(seed)
    save_tokenizer(tokenizer, out / "tokenizer")
    for stage, count in counts.items():
        corpus = draw_corpus(tokenizer, seed=f"{seed}-{stage}", count=count, size=STAGE_SIZES[stage])
        save_file(corpus, out / f"{stage}.safetensors")
        share = np.mean(corpus["turns"] > 0)
        print(f"{stage}: {count} conversations, {len(corpus['ids'])} tokens, {share:.0%} answers")
    save_file(draw_corpus(tokenizer, seed=f"{seed}-eval", count=num_eval, size=FULL_SIZE), out / "eval.safetensors")


def main() -> None:
    """Parse arguments and write the corpora."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/demo"))
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json to keep; default: build one")
    parser.add_argument("--stage0", type=int, default=12_000)
    parser.add_argument("--stage1", type=int, default=16_000)
    parser.add_argument("--stage2", type=int, default=24_000)
    parser.add_argument("--stage3", type=int, default=24_000)
    parser.add_argument("--eval", type=int, default=600)
    args = parser.parse_args()
    counts = {stage: getattr(args, stage) for stage in STAGE_SIZES}
    write_corpus(args.out, seed=args.seed, counts=counts, num_eval=args.eval, tokenizer_file=args.tokenizer)


if __name__ == "__main__":
    main()
