"""A model's own greedy answers to the prompts of a corpus, as a corpus. It does not know what they are used for."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.artifacts.causal_lm import CausalLM, KeyValues
from engine.artifacts.conversation_batches import Corpus

MAX_BATCH = 96


class Prompt(NamedTuple):
    """A conversation up to the start of answer number ``turn``, earlier answers as in the corpus."""

    ids: Tensor
    turn: int
    task: int


@torch.no_grad()
def decode_greedily(model: CausalLM, prompts: Tensor, *, end: int, max_tokens: int) -> list[list[int]]:
    """Answers to ``prompts`` [batch, length], each up to and with ``end`` where it comes in time."""
    past = [KeyValues() for _ in model.model.layers]
    states = model.hidden_states(prompts, past)[:, -1:]
    answers: list[Tensor] = []
    finished = torch.zeros(len(prompts), 1, dtype=torch.bool)
    while len(answers) < max_tokens and not finished.all():
        answers.append(model.logits(states).argmax(-1))
        finished |= answers[-1] == end
        states = model.hidden_states(answers[-1], past)
    rows = torch.cat(answers, dim=1).tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


def every_prompt(corpus: Corpus, rows: range) -> Iterator[Prompt]:
    """One prompt for every answer of the conversations ``rows``."""
    for row in rows:
        start, stop = int(corpus.offsets[row]), int(corpus.offsets[row + 1])
        ids, turns = corpus.ids[start:stop], corpus.turns[start:stop]
        for turn in range(1, int(turns.max()) + 1):
            first = int((turns == turn).nonzero()[0])
            yield Prompt(ids=ids[:first], turn=turn, task=int(corpus.tasks[row]))


def batches_of_one_length(prompts: Iterator[Prompt]) -> Iterator[list[Prompt]]:
    """Groups of prompts that need no padding."""
    by_length: dict[int, list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        by_length[len(prompt.ids)].append(prompt)
    for group in by_length.values():
        for start in range(0, len(group), MAX_BATCH):
            yield group[start : start + MAX_BATCH]


def write_greedy_answers(
    model: CausalLM, corpus: Corpus, path: Path, *, rows: range, end: int, max_tokens: int = 160
) -> int:
    """Answer every prompt of ``rows`` and write prompts and answers to ``path``; returns the number of answers."""
    ids, turns, tasks = [], [], []
    for group in batches_of_one_length(every_prompt(corpus, rows)):
        answers = decode_greedily(model, torch.stack([prompt.ids for prompt in group]), end=end, max_tokens=max_tokens)
        for prompt, answer in zip(group, answers, strict=True):
            ids.append(torch.cat((prompt.ids, torch.tensor(answer))))
            turns.append(torch.cat((torch.zeros(len(prompt.ids)), torch.ones(len(answer)))))
            tasks.append(prompt.task)
    offsets = torch.tensor([0, *map(len, ids)]).cumsum(0)
    tensors = {"ids": torch.cat(ids).int(), "turns": torch.cat(turns).to(torch.uint8)}
    save_file(tensors | {"tasks": torch.tensor(tasks, dtype=torch.uint8), "offsets": offsets}, path)
    return len(ids)
