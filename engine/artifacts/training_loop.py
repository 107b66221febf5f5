"""The steps every demo training shares: schedule, update, checkpoint, log. It does not know what is learned."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.artifacts.muon import Adam, Muon


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Warm up, hold, then decay linearly to zero; ``learning_rate`` is Muon's, Adam gets a fixed share."""

    num_steps: int
    learning_rate: float = 0.005
    adam_share: float = 0.1
    num_warmup_steps: int = 30
    decay_from: float = 0.6

    def rate(self, step: int) -> float:
        """Muon's rate of step number ``step``."""
        if step < self.num_warmup_steps:
            return self.learning_rate * (step + 1) / self.num_warmup_steps
        left = (self.num_steps - step) / (self.num_steps * (1 - self.decay_from))
        return self.learning_rate * min(1.0, max(left, 0.0))


class Trainer:
    """A model with its optimizers, its schedule and its place in the run."""

    def __init__(self, model: nn.Module, schedule: Schedule) -> None:
        self.model = model
        self.schedule = schedule
        self.step = 0
        self.num_tokens = 0
        matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
        others = [p for name, p in model.named_parameters() if p.dim() == 1 or "embed" in name]
        self.muon, self.adam = Muon(matrices), Adam(others)

    def update(self, loss: Tensor, num_tokens: int) -> None:
        """Backpropagate ``loss`` and take one step."""
        loss.backward()  # type: ignore[no-untyped-call]
        rate = self.schedule.rate(self.step)
        self.muon.step(rate)
        self.adam.step(rate * self.schedule.adam_share)
        self.step += 1
        self.num_tokens += num_tokens

    def save(self, path: Path) -> None:
        """Write everything needed to resume."""
        place = {"place": torch.tensor([self.step, self.num_tokens])}
        unfinished = path.with_suffix(".unfinished")
        save_file(self.muon.state() | self.adam.state() | place, unfinished)
        unfinished.replace(path)

    def resume(self, path: Path) -> None:
        """Take up the run saved at ``path``."""
        state = load_file(path)
        self.muon.load(state)
        self.adam.load(state)
        self.step, self.num_tokens = state["place"].tolist()


class Log:
    """One JSON line per event, on stdout, with the seconds since the start."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def write(self, **values: object) -> None:
        """Print the values."""
        print(json.dumps({"seconds": round(time.monotonic() - self.started, 1), **values}), flush=True)
