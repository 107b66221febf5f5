"""`cheapest_mix`: whole replicas of several configs that share a load of several kinds of requests, by integer program.

Does not know configs or how capacities were come by. A replica that serves several kinds is busy for the sum of what
each takes alone (the formulation of Mélange, Griggs et al. 2024), which is exact only for servers that do not batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from optimizer.quiet_stdout import quiet_stdout
from workloads.record_arrays import Floats, Ints

GAP = 0.005  # of the cost: within it a plan is good enough, far inside what predicted capacities are worth
TIME_LIMIT_S = 20.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Mix:
    """`shares[b, c]` of the requests of kind b go to config c."""

    replicas: Ints  # (configs,)
    shares: Floats  # (kinds, configs), rows sum to 1
    usd_per_hour: float
    lower_bound_usd: float  # no mix costs less


def cheapest_mix(
    load_rps: Floats,
    capacity_rps: Floats,
    usd_per_hour: Floats,
    *,
    gap: float = GAP,
    time_limit_s: float = TIME_LIMIT_S,
) -> Mix | None:
    """min Σ_c n_c usd_c such that Σ_b load_b share_bc / capacity_bc <= n_c and Σ_c share_bc = 1; n_c whole.

    Args:
        load_rps: (kinds,) requests a second.
        capacity_rps: (kinds, configs) what one replica holds of a kind alone; 0: it cannot serve that kind.
        usd_per_hour: (configs,) of one replica.
        gap: share of the cost by which the answer may miss the optimum.

    Returns:
        None when some kind is served by no config.
    """
    kinds, configs = capacity_rps.shape
    able = capacity_rps > 0
    if not able.any(axis=1).all():
        return None
    useful = _undominated(capacity_rps, usd_per_hour)
    if len(useful) < configs:
        part = cheapest_mix(load_rps, capacity_rps[:, useful], usd_per_hour[useful], gap=gap, time_limit_s=time_limit_s)
        return None if part is None else _spread(part, useful, configs)
    busy = np.divide(load_rps[:, None], capacity_rps, out=np.zeros_like(capacity_rps), where=able)
    num_shares = kinds * configs
    whole = np.zeros((kinds, num_shares + configs))
    held = np.zeros((configs, num_shares + configs))
    for kind in range(kinds):
        whole[kind, kind * configs : (kind + 1) * configs] = 1
        held[np.arange(configs), kind * configs + np.arange(configs)] = busy[kind]
    held[np.arange(configs), num_shares + np.arange(configs)] = -1
    with quiet_stdout():  # HiGHS prints a stray line whatever its options say
        found = milp(
            c=np.concatenate([np.zeros(num_shares), usd_per_hour]),
            integrality=np.concatenate([np.zeros(num_shares), np.ones(configs)]),
            bounds=Bounds(0, np.concatenate([able.ravel().astype(float), np.full(configs, np.inf)])),
            constraints=[LinearConstraint(whole, 1, 1), LinearConstraint(held, -np.inf, 0)],
            options={"time_limit": time_limit_s, "mip_rel_gap": gap},
        )
    if found.x is None:
        return None
    shares: Floats = np.clip(found.x[:num_shares].reshape(kinds, configs), 0, 1)
    replicas: Ints = np.rint(found.x[num_shares:]).astype(np.int64)
    return Mix(
        replicas=replicas,
        shares=shares / shares.sum(axis=1, keepdims=True),
        usd_per_hour=float(replicas @ usd_per_hour),
        lower_bound_usd=float(found.mip_dual_bound),
    )


def _undominated(capacity_rps: Floats, usd_per_hour: Floats) -> Ints:
    """Places of the configs that no other beats or equals in price and in every kind; of equals the first."""
    losses = np.vstack([-capacity_rps, usd_per_hour])
    order = np.lexsort(losses)  # whoever beats a config comes before it: it is not dearer, then not slower
    kept: list[int] = []
    for place in order.tolist():
        if not kept or not (losses[:, kept] <= losses[:, [place]]).all(axis=0).any():
            kept.append(place)
    found: Ints = np.sort(np.array(kept, np.int64))
    return found


def _spread(part: Mix, useful: Ints, configs: int) -> Mix:
    """The mix with the configs that were left out, unused."""
    replicas = np.zeros(configs, np.int64)
    shares = np.zeros((len(part.shares), configs))
    replicas[useful], shares[:, useful] = part.replicas, part.shares
    return replace(part, replicas=replicas, shares=shares)
