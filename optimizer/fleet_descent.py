"""`cheaper_mix`: from a fleet that holds, replica by replica to cheaper ones that still hold.

Does not know configs, limits or simulators: it is told whether a mix holds. The integer program of `fleet_mix` takes
servers that do not batch, which is on the safe side; what a fleet really takes is found here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from optimizer.fleet_mix import Mix
from workloads.record_arrays import Floats, Ints

MAX_TRIES = 60
MOST_BUSY = 1.25  # by the program, whose sum of busy times a batching server undercuts


def cheapest_descent(
    starts: Sequence[Mix],
    *,
    load_rps: Floats,
    capacity_rps: Floats,
    usd_per_hour: Floats,
    holds: Callable[[Mix], bool],
    max_tries: int = MAX_TRIES,
) -> Mix | None:
    """The cheapest of what `cheaper_mix` makes of each start, all of which hold; None without a start."""
    found = [
        cheaper_mix(
            start,
            load_rps=load_rps,
            capacity_rps=capacity_rps,
            usd_per_hour=usd_per_hour,
            holds=holds,
            max_tries=max_tries,
        )
        for start in starts
    ]
    return min(found, key=lambda mix: mix.usd_per_hour, default=None)


def cheaper_mix(
    mix: Mix,
    *,
    load_rps: Floats,
    capacity_rps: Floats,
    usd_per_hour: Floats,
    holds: Callable[[Mix], bool],
    max_tries: int = MAX_TRIES,
) -> Mix:
    """The mix, or a cheaper one that holds: replicas are dropped or changed for cheaper ones, the most saving first.

    Args:
        load_rps: (kinds,) requests a second.
        capacity_rps: (kinds, configs) what one replica holds of a kind alone; 0: it cannot serve that kind.
        usd_per_hour: (configs,) of one replica.
        holds: asked at most `max_tries` times.
    """
    tries = 0
    moved = True
    while moved:
        moved = False
        for replicas in _neighbours(mix.replicas, usd_per_hour):
            shares = least_busy_shares(load_rps, capacity_rps, replicas)
            if shares is None:
                continue
            if tries == max_tries:
                return mix
            tries += 1
            tried = Mix(
                replicas=replicas,
                shares=shares,
                usd_per_hour=float(replicas @ usd_per_hour),
                lower_bound_usd=0.0,
            )
            if holds(tried):
                mix, moved = tried, True
                break
    return mix


def least_busy_shares(load_rps: Floats, capacity_rps: Floats, replicas: Ints) -> Floats | None:
    """(kinds, configs) shares at which the busiest pool is the least busy; None where it is busier than `MOST_BUSY`.

    min u such that Σ_b load_b share_bc / capacity_bc <= u n_c and Σ_c share_bc = 1.
    """
    able = (capacity_rps > 0) & (replicas > 0)
    if not able.any(axis=1).all():
        return None
    kinds, configs = capacity_rps.shape
    num_shares = kinds * configs
    busy = np.divide(load_rps[:, None], capacity_rps, out=np.zeros_like(capacity_rps), where=able)
    whole, held = np.zeros((kinds, num_shares + 1)), np.zeros((configs, num_shares + 1))
    for kind in range(kinds):
        whole[kind, kind * configs : (kind + 1) * configs] = 1
        held[np.arange(configs), kind * configs + np.arange(configs)] = busy[kind]
    held[:, -1] = -replicas
    found = milp(
        c=np.concatenate([np.zeros(num_shares), [1.0]]),
        bounds=Bounds(0, np.concatenate([able.ravel().astype(float), [MOST_BUSY]])),
        constraints=[LinearConstraint(whole, 1, 1), LinearConstraint(held, -np.inf, 0)],
    )
    if found.x is None:
        return None
    shares: Floats = np.clip(found.x[:num_shares].reshape(kinds, configs), 0, 1)
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def _neighbours(replicas: Ints, usd_per_hour: Floats) -> Iterator[Ints]:
    """One replica dropped, or changed for one of a cheaper config; the cheapest fleets first."""
    moves: list[tuple[float, int, int]] = []
    for place in np.flatnonzero(replicas).tolist():
        moves.append((-float(usd_per_hour[place]), place, -1))
        moves += [
            (float(usd_per_hour[other] - usd_per_hour[place]), place, other)
            for other in np.flatnonzero(usd_per_hour < usd_per_hour[place]).tolist()
        ]
    for _, place, other in sorted(moves):
        changed = replicas.copy()
        changed[place] -= 1
        if other >= 0:
            changed[other] += 1
        if changed.any():
            yield changed
