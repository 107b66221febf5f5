"""`Traffic`: the requests of a simulation as plain columns.

Does not know workload files or text: `optimizer/` makes one from a workload.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from engine.simulator.errors import SimulatorError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_OF_ANSWERS = ("output_tokens", "parent", "think_s", "tokens_per_step")
_COLUMNS = ("input_tokens", "priority", "client", "block_hashes", *_OF_ANSWERS)


@dataclass(frozen=True, kw_only=True, eq=False)
class Traffic:
    """One entry a request.

    Args:
        arrival_s: when it arrives; ignored where `parent` is given.
        input_tokens: at least 1.
        output_tokens: at least 1; a request ends when it has them.
        parent: the request (index) whose end it waits for, -1 for none.
        think_s: from the parent's end to its own start.
        priority: lower first, among equals the earlier; read by the policy `priority` alone.
        client: numbers from 0, of whom the policy `fair` serves in turn; None: all are one.
        block_hashes: names of the leading full blocks of prompt and answer, as far as known. A name stands for its
            block at its place after the blocks before it. None: nothing is shared.
        hash_block_tokens: tokens of a named block.
        tokens_per_step: under speculation, where a request's own is known; NaN elsewhere. 1 is a step a token.
        max_concurrency: most requests in flight; the others arrive, in order, as soon as one ends (a closed loop).

    Raises:
        SimulatorError: columns of different lengths, or a value outside its range.
    """

    arrival_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    parent: Ints | None = None
    think_s: Floats | None = None
    priority: Ints | None = None
    client: Ints | None = None
    block_hashes: Sequence[Sequence[int]] | None = None
    hash_block_tokens: int = 16
    tokens_per_step: Floats | None = None
    max_concurrency: int | None = None

    def __post_init__(self) -> None:
        for name in _COLUMNS:
            column = getattr(self, name)
            if column is not None and len(column) != len(self):
                raise SimulatorError(f"{name} has {len(column)} entries for {len(self)} requests. Give one a request")
        if not np.isfinite(self.arrival_s).all() or (self.arrival_s < 0).any():
            raise SimulatorError("arrival_s has a negative or undefined entry. Give seconds from the first request on")
        if (self.input_tokens < 1).any() or (self.output_tokens < 1).any():
            raise SimulatorError("a request has no input or no output token. Drop it or give at least one of each")
        if self.parent is not None and ((self.parent >= np.arange(len(self))) | (self.parent < -1)).any():
            raise SimulatorError("a request's parent comes after it. Sort the requests so that parents come first")
        if self.think_s is not None and not (self.think_s >= 0).all():
            raise SimulatorError("think_s has a negative or undefined entry. Give seconds, zero or more")
        if self.tokens_per_step is not None and (self.tokens_per_step < 1).any():
            raise SimulatorError("tokens_per_step has an entry below 1: every step of an answer gives a token")
        if self.client is not None and len(self) and not 0 <= self.client.min() <= self.client.max() < len(self):
            raise SimulatorError("client has an entry that is no number from 0 on. Number the clients")
        if self.max_concurrency is not None and self.max_concurrency < 1:
            raise SimulatorError(f"max_concurrency is {self.max_concurrency}. Give at least 1")

    def __len__(self) -> int:
        return len(self.arrival_s)

    def at_speed(self, factor: float) -> Traffic:
        """The same requests arriving `factor` times as fast; think times shrink alike."""
        think = None if self.think_s is None else self.think_s / factor
        return replace(self, arrival_s=self.arrival_s / factor, think_s=think)
