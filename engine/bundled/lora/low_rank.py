"""`LowRank`: what adapters add to one matrix of the decoder, and `LoraLinear`, which adds it.

Does not know folders or names: adapters are numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from engine.bundled.batch import Ints


class LowRank(NamedTuple):
    """y[first : first + len(B)] += B A x, in float32."""

    first: int
    a: Tensor  # [rank, in]
    b: Tensor  # [out, rank], the scale included


class AdapterRows:
    """Which rows of the step under way belong to which adapter; shared by all layers of a decoder."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, Tensor]] = []

    def set(self, adapters: Ints | None, lengths: Ints, device: torch.device) -> None:
        """A step of sequences with these adapters [S] (-1 or no array: none) and so many tokens [S] each, packed."""
        self._rows = []
        if adapters is None:
            return
        of_token = np.repeat(adapters, lengths)
        for number in np.unique(of_token).tolist():
            if number >= 0:
                self._rows.append((number, torch.from_numpy(np.flatnonzero(of_token == number)).to(device)))

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """Adapters of the step with the rows of each."""
        return iter(self._rows)


class LoraLinear(nn.Module):
    """A linear layer, quantized or not, with what the rows' adapters add."""

    def __init__(self, base: nn.Module, parts: dict[int, list[LowRank]], rows: AdapterRows) -> None:
        super().__init__()
        self.base, self.parts, self._rows = base, parts, rows

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x)
        for number, rows in self._rows:
            parts = self.parts.get(number, ())
            own = x[rows].float() if parts else x
            for part in parts:
                added = (own @ part.a.T) @ part.b.T
                columns = torch.arange(part.first, part.first + len(part.b), device=x.device)
                place = (rows.unsqueeze(1), columns)
                out[place] = (out[place].float() + added).to(out.dtype)
        return out
