"""Reads tokenised conversations and cuts them into padded batches. It does not know how they were made.

A corpus file holds ``ids``, ``turns`` (1-based answer number of each token, else 0), ``tasks`` and ``offsets``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

WINDOW = 1536
LENGTH_STEP = 32


class Batch(NamedTuple):
    """Right-padded conversations: ``ids`` and ``turns`` are [batch, length], ``tasks`` is [batch]."""

    ids: Tensor
    turns: Tensor
    tasks: Tensor

    def targets(self) -> tuple[Tensor, Tensor]:
        """Where (flat positions) and what (token ids) the answers' next tokens are."""
        wanted = torch.zeros_like(self.turns)
        wanted[:, :-1] = self.turns[:, 1:]
        positions = wanted.flatten().nonzero().squeeze(1)
        return positions, self.ids.flatten()[positions + 1]


class Corpus:
    """Tokenised conversations of one file."""

    def __init__(self, path: Path) -> None:
        tensors = load_file(path)
        self.ids, self.turns = tensors["ids"].long(), tensors["turns"].long()
        self.tasks, self.offsets = tensors["tasks"].long(), tensors["offsets"]
        self.lengths = self.offsets.diff()

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, rows: list[int]) -> Batch:
        """The conversations ``rows``, padded to a few lengths only, as a CPU compiles its kernels for every shape."""
        length = -(-int(self.lengths[rows].max()) // LENGTH_STEP) * LENGTH_STEP
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        turns = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            start, stop = int(self.offsets[row]), int(self.offsets[row + 1])
            ids[place, : stop - start] = self.ids[start:stop]
            turns[place, : stop - start] = self.turns[start:stop]
        return Batch(ids=ids, turns=turns, tasks=self.tasks[rows])

    def cut(self, rows: list[int], max_tokens: int) -> list[list[int]]:
        """Group ``rows``, sorted by length, so that a padded group has at most ``max_tokens`` tokens."""
        groups: list[list[int]] = [[]]
        for row in sorted(rows, key=lambda row: int(self.lengths[row])):
            length = -(-int(self.lengths[row]) // LENGTH_STEP) * LENGTH_STEP
            if (len(groups[-1]) + 1) * length > max_tokens and groups[-1]:
                groups.append([])
            groups[-1].append(row)
        return groups

    def epochs(self, max_tokens: int, seed: int) -> Iterator[Batch]:
        """Batches for ever, in a new order every epoch."""
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(len(self), generator=generator).tolist()
            for start in range(0, len(order), WINDOW):
                groups = self.cut(order[start : start + WINDOW], max_tokens)
                for index in torch.randperm(len(groups), generator=generator).tolist():
                    yield self.batch(groups[index])

    def in_order(self, max_tokens: int, limit: int | None = None) -> Iterator[Batch]:
        """Every conversation once, or the first ``limit``."""
        for rows in self.cut(list(range(len(self)))[:limit], max_tokens):
            yield self.batch(rows)
