"""`Decoding`: a sequence whose prompt is computed, as a line from one tick to another; and how many steps fit a time.

Does not know schedulers or blocks.
"""

from __future__ import annotations

from math import ceil, sqrt
from typing import NamedTuple

SLACK = 1e-6  # what rounding may add up to


class Decoding(NamedTuple):
    """From `tick` with `num_computed` tokens, `num_tokens` to come in `num_steps` ticks."""

    tick: int
    num_computed: int
    num_tokens: int
    num_steps: int

    @property
    def rate(self) -> float:
        """Tokens that come a tick."""
        return self.num_tokens / self.num_steps if self.num_steps else 0.0

    def gained(self, tick: int) -> int:
        """Tokens that came until then."""
        return (tick - self.tick) * self.num_tokens // self.num_steps if self.num_steps else 0


def steps_within(left_s: float, first_s: float, growth_s: float) -> int:
    """The fewest steps that last until `left_s`: the root of growth/2 n² + (first - growth/2) n = left."""
    linear = first_s - growth_s / 2
    if abs(growth_s) < 1e-9 * first_s:
        return max(1, ceil(left_s / first_s - SLACK))
    root = (sqrt(max(0.0, linear * linear + 2 * growth_s * left_s)) - linear) / growth_s
    return max(1, ceil(root - SLACK))
