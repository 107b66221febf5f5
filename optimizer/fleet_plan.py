"""`plan_fleets`: for a recorded load, the cheapest predicted fleet of each SKU, and the cheapest one mixed by length.

Does not search scheduler settings: `fopt run --engine simulated` does. Nothing here is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.config import EngineConfig
from engine.simulated_backend import Serving, SimulatedBackend
from engine.simulator.oracle import Provenance
from engine.simulator.simulate import simulate
from optimizer.cost import RecordedLoad, recorded_load
from optimizer.fidelity import part_of
from optimizer.fleet_descent import MAX_TRIES, cheapest_descent
from optimizer.fleet_mix import Mix, cheapest_mix
from optimizer.predicted_capacity import UnreachableSloError, predict_capacity
from optimizer.predicted_fleet import ROUTER, PredictedFleet, predict_fleet
from optimizer.simulated_measurer import simulated_part
from optimizer.simulated_replay import SimulatedReplay, simulated_replay
from optimizer.slo import Slo
from optimizer.slo_rate import latency_slos, latency_slos_hold, worst_violation
from search_spaces.skus import Sku, find_sku
from workloads.metrics import ServingMetrics, summarize
from workloads.record_arrays import Floats, Ints
from workloads.records import RequestRecord
from workloads.request import Request
from workloads.workload import Workload

NUM_BUCKETS = 4
MAX_REQUESTS = 1000
_HEADROOMS = 8  # tries, each with a fifth more load, until the mixed fleet holds the peaks in simulation


@dataclass(frozen=True, kw_only=True)
class FleetOption:
    """Replicas of one config, for all requests."""

    config: EngineConfig
    fleet: PredictedFleet
    worst_violation: float  # of a latency limit at the recorded arrivals, relative to it; 0 or less: all hold
    provenance: Provenance  # of its step times

    @property
    def holds(self) -> bool:
        return self.worst_violation <= 0

    @property
    def basis(self) -> str:
        return self.provenance.sentence()

    @property
    def usd_per_hour(self) -> float:
        return self.fleet.cost.usd_per_hour


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Replicas of one config in a mixed fleet, and the share that it serves of each bucket."""

    config: EngineConfig
    replicas: int
    usd_per_hour: float  # of all of them
    shares: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class MixedFleet:
    """Pools behind a router by length. `edges` are total tokens, inclusive, at which a bucket ends."""

    pools: tuple[Pool, ...]
    edges: tuple[int, ...]
    usd_per_hour: float
    metrics: ServingMetrics
    holds: bool  # the latency limits, in a simulation of all pools at the recorded arrivals and headroom


class FleetPlanner:
    """Plans for one workload on candidate configs."""

    def __init__(
        self, *, backend: SimulatedBackend, workload: Workload, skus: Mapping[str, Sku], headroom: float, seed: int = 0
    ) -> None:
        """Raises OptimizerError: a workload without arrivals or token counts."""
        self._backend, self._skus, self._headroom, self._seed = backend, skus, headroom, seed
        self.load: RecordedLoad = recorded_load(workload)
        part = simulated_part(workload, max_requests=MAX_REQUESTS, seed=seed)
        self.replay = simulated_replay(part)
        self._part = part

    def options(self, configs: Sequence[EngineConfig], slos: tuple[Slo, ...]) -> list[FleetOption]:
        """A fleet of each config: those that hold the limits, by dollars per hour, then the nearest to them first."""
        found = [self._option(config, slos) for config in configs]
        return sorted(found, key=lambda option: (max(0.0, option.worst_violation), option.usd_per_hour))

    def _option(self, config: EngineConfig, slos: tuple[Slo, ...]) -> FleetOption:
        serving, sku = self._backend.serving(config), find_sku(self._skus, config.hardware.sku)
        fleet = predict_fleet(
            self.replay,
            serving,
            self.load,
            sku=sku,
            sku_count=config.hardware.count,
            slos=slos,
            headroom=self._headroom,
        )
        violation = worst_violation(fleet.metrics, latency_slos(slos))
        return FleetOption(config=config, fleet=fleet, worst_violation=violation, provenance=serving.oracle.provenance)

    def mixed(self, options: Sequence[FleetOption], slos: tuple[Slo, ...]) -> MixedFleet | None:
        """By length buckets, never dearer than the cheapest option that holds; None when there is no fleet at all.

        As of the fleets of one config, it is asked to hold the limits at arrivals faster by the headroom. Without
        limits nothing says that fewer replicas than the program's would do.
        """
        configs = [option.config for option in options]
        servings = [self._backend.serving(config) for config in configs]
        edges, bucket_of = length_buckets(self.replay)
        rates = np.bincount(bucket_of, minlength=len(edges)) / len(bucket_of) * self.load.rate_rps
        rates *= 1 + self._headroom
        capacity = self._capacities(servings, bucket_of, len(edges), slos)
        usd = np.array([find_sku(self._skus, c.hardware.sku).usd_per_hour * c.hardware.count for c in configs])

        def hold(mix: Mix) -> bool:
            metrics = self._simulated(mix, servings, bucket_of, speed=1 + self._headroom)
            return latency_slos_hold(metrics, latency_slos(slos))

        planned, holds = _planned_mix(rates, capacity, usd, hold)
        alone = _alone_mix(options, num_kinds=len(edges), usd_per_hour=usd)
        starts = [mix for mix in (alone, planned if holds else None) if mix is not None]
        tries = MAX_TRIES if latency_slos(slos) else 0
        mix = cheapest_descent(
            starts, load_rps=rates, capacity_rps=capacity, usd_per_hour=usd, holds=hold, max_tries=tries
        )
        if mix is None and planned is None:
            return None
        chosen = mix or planned
        assert chosen is not None
        return MixedFleet(
            pools=_pools(chosen, configs, usd),
            edges=edges,
            usd_per_hour=chosen.usd_per_hour,
            metrics=self._simulated(chosen, servings, bucket_of, speed=1.0),
            holds=mix is not None,
        )

    def _capacities(
        self, servings: Sequence[Serving], bucket_of: Ints, num_buckets: int, slos: tuple[Slo, ...]
    ) -> Floats:
        """(buckets, configs) requests/s of one replica; 0 where the limits hold at no rate."""
        capacity = np.zeros((num_buckets, len(servings)))
        for bucket in range(num_buckets):
            rows = np.flatnonzero(bucket_of == bucket)
            replay = simulated_replay(part_of(self._part, [_alone(self.replay.requests[row]) for row in rows]))
            tokens = float((replay.traffic.input_tokens + replay.traffic.output_tokens).mean())
            for place, serving in enumerate(servings):
                try:
                    held = predict_capacity(replay, *serving, slos=slos)
                except UnreachableSloError:
                    continue
                capacity[bucket, place] = held.tokens_per_second / tokens
        return capacity

    def _simulated(self, mix: Mix, servings: Sequence[Serving], bucket_of: Ints, *, speed: float) -> ServingMetrics:
        """All pools at a multiple of the recorded rate; requests are dealt to them at random by the shares."""
        cumulated = np.cumsum(mix.shares, axis=1)[bucket_of]
        draws = np.random.default_rng(self._seed).random((len(bucket_of), 1))
        pool_of = np.minimum((draws > cumulated).sum(axis=1), len(servings) - 1)
        records: list[RequestRecord] = []
        for place, serving in enumerate(servings):
            rows = np.flatnonzero(pool_of == place)
            if not len(rows):
                continue
            requests = [_alone(self.replay.requests[row]) for row in rows]
            replay = simulated_replay(Workload.from_requests(requests, self._part.metadata))
            replicas = max(1, int(mix.replicas[place]))
            traffic = replay.traffic if speed == 1.0 else replay.traffic.at_speed(speed)
            records += replay.records(simulate(traffic, *serving, num_replicas=replicas, router=ROUTER))
        return summarize(records)


def _planned_mix(rates: Floats, capacity: Floats, usd: Floats, hold: Callable[[Mix], bool]) -> tuple[Mix | None, bool]:
    """The program's fleet, for more and more load until it holds in simulation, and whether it does."""
    mix = cheapest_mix(rates, capacity, usd)
    for tried in range(1, _HEADROOMS):
        if mix is None or hold(mix):
            return mix, mix is not None
        mix = cheapest_mix(rates * 1.2**tried, capacity, usd) or mix
    return mix, mix is not None and hold(mix)


def _alone_mix(options: Sequence[FleetOption], *, num_kinds: int, usd_per_hour: Floats) -> Mix | None:
    """The cheapest fleet of one config that holds, as a mix."""
    held = [place for place, option in enumerate(options) if option.holds]
    if not held:
        return None
    place = min(held, key=lambda place: options[place].usd_per_hour)
    replicas, shares = np.zeros(len(options), np.int64), np.zeros((num_kinds, len(options)))
    replicas[place], shares[:, place] = options[place].fleet.cost.replicas, 1.0
    return Mix(
        replicas=replicas,
        shares=shares,
        usd_per_hour=float(replicas @ usd_per_hour),
        lower_bound_usd=0.0,
    )


def length_buckets(replay: SimulatedReplay, num_buckets: int = NUM_BUCKETS) -> tuple[tuple[int, ...], Ints]:
    """Total tokens at which each bucket ends, and the bucket of every request; about as many tokens in each."""
    totals = replay.traffic.input_tokens + replay.traffic.output_tokens
    ordered = np.sort(totals)
    shares = np.cumsum(ordered) / ordered.sum()
    places = [int(np.searchsorted(shares, (part + 1) / num_buckets)) for part in range(num_buckets - 1)]
    edges = sorted({*(int(ordered[place]) for place in places), int(ordered[-1])})
    bucket_of: Ints = np.searchsorted(np.array(edges), totals)
    return tuple(edges), bucket_of


def _alone(request: Request) -> Request:
    return replace(request, parent_ids=(), think_s=None)


def _pools(mix: Mix, configs: Sequence[EngineConfig], usd: Floats) -> tuple[Pool, ...]:
    return tuple(
        Pool(
            config=config,
            replicas=int(mix.replicas[place]),
            usd_per_hour=float(mix.replicas[place] * usd[place]),
            shares=tuple(float(share) for share in mix.shares[:, place]),
        )
        for place, config in enumerate(configs)
        if mix.replicas[place]
    )
