"""`Outcome`: what a simulation says about every request, as columns.

Does not know statistics: `optimizer/` turns it into request records.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from engine.simulator.tick_log import TickLog
from engine.simulator.traffic import Floats, Ints


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One entry a request, times in seconds on the traffic's clock."""

    start_s: Floats  # its arrival, or its parent's end + think time
    first_token_s: Floats
    end_s: Floats
    output_tokens: Ints
    num_preemptions: Ints
    num_cached_tokens: Ints  # of the prompt, found in the prefix cache
    replica: Ints
    busy_s: Floats  # one entry a replica: time spent in steps
    logs: tuple[TickLog, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.start_s)

    @property
    def ttft_s(self) -> Floats:
        """First token - start."""
        return self.first_token_s - self.start_s

    @property
    def e2el_s(self) -> Floats:
        """Last token - start."""
        return self.end_s - self.start_s

    @property
    def tpot_s(self) -> Floats:
        """(E2EL - TTFT) / (output tokens - 1); NaN where there is one token."""
        gaps = np.where(self.output_tokens > 1, self.output_tokens - 1, np.nan)
        tpot: Floats = (self.end_s - self.first_token_s) / gaps
        return tpot

    @property
    def utilisation(self) -> Floats:
        """Of every replica: time in steps / time from the first start to the last end."""
        shares: Floats = self.busy_s / (self.end_s.max() - self.start_s.min())
        return shares

    @cached_property
    def token_offsets(self) -> Ints:
        """Request i's token times lie from offsets[i] to offsets[i + 1]."""
        offsets: Ints = np.concatenate([[0], np.cumsum(self.output_tokens)])
        return offsets

    @cached_property
    def token_times_s(self) -> Floats:
        """Times of all tokens, request by request."""
        tokens = [log.token_times() for log in self.logs]
        owners: Ints = np.concatenate([requests for requests, _ in tokens])
        values: Floats = np.concatenate([times for _, times in tokens])
        ordered: Floats = values[np.lexsort((values, owners))]
        return ordered
