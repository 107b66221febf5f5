"""`TickLog`: when every step of a server ended and which request got how many tokens between which steps.

A decode run of many steps is one entry; the times of single tokens are worked out only when somebody asks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.simulator.traffic import Floats, Ints


class Stint(NamedTuple):
    """A request's tokens between two of its (re)starts: one at `first_tick`, the others evenly until `last_tick`."""

    request: int
    first_tick: int
    last_tick: int
    num_tokens: int


class TickLog:
    """Tick n is the end of the server's step number n, counted from 1.

    Args:
        delivery_share: of a step's time, from its end until its tokens have arrived.
    """

    def __init__(self, delivery_share: float = 0.0) -> None:
        self._delivery_share = delivery_share
        self._first_ticks: list[int] = []
        self._starts_s: list[float] = []
        self._firsts_s: list[float] = []
        self._growths_s: list[float] = []
        self.stints: list[Stint | tuple[int, int, int, int]] = []

    def add_steps(self, first_tick: int, start_s: float, first_s: float, growth_s: float) -> None:
        """Steps after tick `first_tick`: the first takes `first_s`, each further one `growth_s` more."""
        self._first_ticks.append(first_tick)
        self._starts_s.append(start_s)
        self._firsts_s.append(first_s)
        self._growths_s.append(growth_s)

    def times(self, ticks: Ints) -> Floats:
        """When the tokens of these ticks arrived; each tick at least 1."""
        entry = np.searchsorted(np.array(self._first_ticks), ticks, side="left") - 1
        steps = ticks - np.array(self._first_ticks)[entry]
        first, growth = np.array(self._firsts_s)[entry], np.array(self._growths_s)[entry]
        ends = np.array(self._starts_s)[entry] + steps * first + growth * (steps * (steps - 1) / 2)
        times: Floats = ends + self._delivery_share * (first + growth * (steps - 1))
        return times

    def token_times(self) -> tuple[Ints, Floats]:
        """Request and time of every token, in order of stints."""
        stints = np.array(self.stints, np.int64).reshape(-1, 4)
        counts = stints[:, 3]
        place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        request, first, last, number = np.repeat(stints, counts, axis=0).T
        ticks = first + -((-place * (last - first)) // np.maximum(number - 1, 1))  # rounded up: tokens of a step end it
        return request, self.times(ticks) if len(ticks) else np.empty(0)
