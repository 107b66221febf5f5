"""Default against recommended, run by run: ratios with intervals, and whether the promise holds.

Does not measure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from optimizer.measurement import Measurement
from optimizer.objective import Objective
from optimizer.results import Comparison
from workloads.errors import UndefinedMetricError
from workloads.estimate import Estimate, ratio_bootstrap
from workloads.statistic import statistic_named

LOWER_IS_BETTER = ("p50_e2el_ms", "p95_e2el_ms", "p95_ttft_ms", "p50_tpot_ms")
HIGHER_IS_BETTER = ("output_throughput",)
SATURATION = "saturation_throughput"  # input plus output tokens per second of a server that never waits for work


def compare_runs(default: Sequence[Measurement], recommended: Sequence[Measurement]) -> tuple[Comparison, ...]:
    """One comparison a metric that both define; runs are paired in order, and a pair with a void run is left out."""
    pairs = [pair for pair in zip(default, recommended, strict=True) if len(sound(pair)) == 2]
    if not pairs:
        return ()
    default, recommended = zip(*pairs, strict=True)
    found = (_compare(name, default, recommended) for name in (*LOWER_IS_BETTER, *HIGHER_IS_BETTER))
    return tuple(comparison for comparison in found if comparison is not None)


def sound(runs: Iterable[Measurement]) -> list[Measurement]:
    """Those that are not void."""
    return [run for run in runs if not run.void_reason]


def _compare(name: str, default: Sequence[Measurement], recommended: Sequence[Measurement]) -> Comparison | None:
    ours, theirs = ([m.metrics.arrays for m in runs] for runs in (recommended, default))
    above, below = (ours, theirs) if name in HIGHER_IS_BETTER else (theirs, ours)
    try:
        improvement = ratio_bootstrap(above, below, statistic_named(name))
    except UndefinedMetricError:
        return None
    return Comparison(
        metric=name,
        default=over_runs([m.estimates[name] for m in default]),
        recommended=over_runs([m.estimates[name] for m in recommended]),
        improvement=improvement,
    )


def over_runs(estimates: Sequence[Estimate]) -> Estimate:
    """Mean of value and ends over the runs; wider than a pooled interval, which would take the runs for independent."""
    return Estimate(
        value=sum(e.value for e in estimates) / len(estimates),
        low=sum(e.low for e in estimates) / len(estimates),
        high=sum(e.high for e in estimates) / len(estimates),
        num_samples=sum(e.num_samples for e in estimates),
    )


def compare_saturation(default: Estimate, recommended: Estimate) -> Comparison:
    """The ratio's interval takes the far ends of both."""
    return Comparison(
        metric=SATURATION,
        default=default,
        recommended=recommended,
        improvement=Estimate(
            value=recommended.value / default.value,
            low=recommended.low / default.high,
            high=recommended.high / default.low,
            num_samples=default.num_samples + recommended.num_samples,
        ),
    )


def mean_metrics(runs: Sequence[Measurement]) -> dict[str, float]:
    """Flat metrics that every run defines, averaged."""
    names = [name for name in runs[0].flat if all(name in run.flat for run in runs)]
    return {name: sum(run.flat[name] for run in runs) / len(runs) for name in names}


def not_worse(objective: Objective | None, comparisons: Iterable[Comparison]) -> bool:
    """Whether the recommended may be at least as good as the default on what the objective is about.

    Σ weight / improvement <= Σ weight over the objective's terms that were compared, with each improvement taken at
    its favourable end; cost and capacity stand for the saturation throughput. Without an objective: p95 latency.
    """
    by_name: Mapping[str, Comparison] = {comparison.metric: comparison for comparison in comparisons}
    weights = _weights(objective)
    told = {name: weight for name, weight in weights.items() if name in by_name}
    return sum(weight / by_name[name].improvement.high for name, weight in told.items()) <= sum(told.values())


def _weights(objective: Objective | None) -> dict[str, float]:
    if objective is None:
        return {"p95_e2el_ms": 1.0}
    weights: dict[str, float] = {}
    for term in objective.terms:
        name = SATURATION if term.measure.source == "cost" else term.measure.field
        weights[name] = weights.get(name, 0.0) + term.weight
    return weights
