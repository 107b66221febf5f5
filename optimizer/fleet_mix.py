"""`cheapest_mix`: whole replicas of several configs that share a load of several kinds of requests, by integer program.

Does not know configs or how capacities were come by. A replica that serves several kinds is busy for the sum of what
each takes alone (the formulation of Mélange, Griggs et al. 2024), which is exact only for servers that do not batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from workloads.record_arrays import Floats, Ints

_TIME_LIMIT_S = 20.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Mix:
    """`shares[b, c]` of the requests of kind b go to config c."""

    replicas: Ints  # (configs,)
    shares: Floats  # (kinds, configs), rows sum to 1
    usd_per_hour: float


def cheapest_mix(load_rps: Floats, capacity_rps: Floats, usd_per_hour: Floats) -> Mix | None:
    """min Σ_c n_c usd_c such that Σ_b load_b share_bc / capacity_bc <= n_c and Σ_c share_bc = 1; n_c whole.

    Args:
        load_rps: (kinds,) requests a second.
        capacity_rps: (kinds, configs) what one replica holds of a kind alone; 0: it cannot serve that kind.
        usd_per_hour: (configs,) of one replica.

    Returns:
        None when some kind is served by no config.
    """
    kinds, configs = capacity_rps.shape
    able = capacity_rps > 0
    if not able.any(axis=1).all():
        return None
    busy = np.divide(load_rps[:, None], capacity_rps, out=np.zeros_like(capacity_rps), where=able)
    num_shares = kinds * configs
    whole = np.zeros((kinds, num_shares + configs))
    held = np.zeros((configs, num_shares + configs))
    for kind in range(kinds):
        whole[kind, kind * configs : (kind + 1) * configs] = 1
        held[np.arange(configs), kind * configs + np.arange(configs)] = busy[kind]
    held[np.arange(configs), num_shares + np.arange(configs)] = -1
    found = milp(
        c=np.concatenate([np.zeros(num_shares), usd_per_hour]),
        integrality=np.concatenate([np.zeros(num_shares), np.ones(configs)]),
        bounds=Bounds(0, np.concatenate([able.ravel().astype(float), np.full(configs, np.inf)])),
        constraints=[LinearConstraint(whole, 1, 1), LinearConstraint(held, -np.inf, 0)],
        options={"time_limit": _TIME_LIMIT_S},
    )
    if found.x is None:
        return None
    shares: Floats = np.clip(found.x[:num_shares].reshape(kinds, configs), 0, 1)
    replicas: Ints = np.rint(found.x[num_shares:]).astype(np.int64)
    return Mix(
        replicas=replicas,
        shares=shares / shares.sum(axis=1, keepdims=True),
        usd_per_hour=float(replicas @ usd_per_hour),
    )
