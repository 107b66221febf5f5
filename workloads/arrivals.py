"""Recorded arrivals as they are replayed: coarse stamps are spread within their step.

Does not know when anything is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from workloads.request import Request

COARSE_S = 0.01  # finer steps than this change no queue


def spread_within_steps(requests: Sequence[Request], resolution_s: float | None, *, seed: int = 0) -> list[Request]:
    """Arrivals anywhere within the recorded step, each as likely; requests of one step keep their order.

    A log in whole seconds has all requests of a second start together, a burst that never was: what arrivals at random
    do within a step, given how many there were, is uniform. Steps of `COARSE_S` or less are left as they are.

    Args:
        resolution_s: the workload's `time_resolution_s`; None: unknown, and taken as exact.
    """
    found = list(requests)
    if resolution_s is None or resolution_s <= COARSE_S:
        return found
    rows = [row for row, request in enumerate(found) if request.arrival_s is not None]
    stamps = np.array([found[row].arrival_s for row in rows], np.float64)
    # by step, then by the recorded order: sorting the draws of a step keeps that order
    steps = np.round(stamps / resolution_s).astype(np.int64)
    offsets = np.random.default_rng(seed).uniform(0.0, resolution_s, len(rows))
    order = np.lexsort((np.arange(len(rows)), steps))
    drawn = np.lexsort((offsets, steps))
    for place, source in zip(order, drawn, strict=True):
        row = rows[place]
        found[row] = replace(found[row], arrival_s=float(stamps[place] + offsets[source]))
    return found
