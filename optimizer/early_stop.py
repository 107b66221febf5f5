"""`EarlyStop`: what ends a candidate's replay early: an SLO violated, or a trial that dominates it, beyond doubt.

Reads what a study has measured from its folder. Does not replay and does not know engines. What it never does: end the
replay of trial 0 (there is nothing yet to compare with), or reject a candidate that might be the nearest to SLOs which
nothing meets: until a trial meets them all, the limits are moved out to where the nearest one is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.config import EngineConfig
from optimizer.errors import OptimizerError
from optimizer.measure import Measure
from optimizer.objective import Objective
from optimizer.pareto import AXES, intervals
from optimizer.recommendation import TIE, total_violation
from optimizer.request_limits import limited_values, percentile_limit
from optimizer.results import Cost, QualityScore, TrialResult, TrialState
from optimizer.slo import Slo
from optimizer.trial_folder import TrialFolder
from workloads.record_arrays import Floats, RecordArrays
from workloads.records import read_records
from workloads.stopping.clustering import clustering_of
from workloads.stopping.dominated import Dominated, Rival
from workloads.stopping.first_to_stop import FirstToStop
from workloads.stopping.limit import LimitedMetric, PercentileLimit
from workloads.stopping.violated import Violated

ALPHA = 0.05  # probability of rejecting a candidate that deserves its full replay, at most; half for each rule
QUALITY, LATENCY, COST = AXES


class EarlyStop:
    """For the candidates of one study, which all replay the same window of `num_requests`."""

    def __init__(self, *, study_dir: Path, objective: Objective, slos: tuple[Slo, ...], num_requests: int) -> None:
        self._study_dir, self._slos, self._num_requests = study_dir, slos, num_requests
        self._limited = _limited_measures(objective)
        self._records: dict[int, RecordArrays] = {}

    def rule(self, config: EngineConfig, *, quality: QualityScore | None, cost: Cost) -> FirstToStop | None:
        """A fresh rule for a candidate's replay; None when nothing could stop it.

        Args:
            quality: of the candidate's class where it is known; otherwise it may be perfect.
            cost: at its saturation throughput. Limits on latency can only make it dearer.
        """
        measured = self._measured()
        if not any(trial.number == 0 for trial in measured):
            return None
        rules: list[Violated | Dominated] = []
        if limits := self._limits(measured):
            known = {name: self._clustering(measured, limit) for name, limit in limits.items()}
            rules.append(Violated(limits, num_requests=self._num_requests, clustering=known, alpha=ALPHA / 2))
        if rivals := self._rivals(measured, config, quality, cost):
            rules.append(Dominated(rivals, num_requests=self._num_requests, alpha=ALPHA / 2))
        return FirstToStop(rules) if rules else None

    def _measured(self) -> list[TrialResult]:
        """Every trial with a full measurement, by number."""
        paths = sorted(self._study_dir.glob("trials/*/result.json"))
        found = (TrialFolder(self._study_dir, int(path.parent.name)).result() for path in paths)
        return [t for t in found if t is not None and t.state is TrialState.COMPLETE and not t.reason]

    def _limits(self, measured: Sequence[TrialResult]) -> dict[str, PercentileLimit]:
        """The latency SLOs by their text; a candidate past one of them is past the nearest trial in total."""
        nearest = min(total_violation(trial) for trial in measured)
        found = {}
        for slo in self._slos:
            limit = percentile_limit(slo.measure, slo.limit * (1 + nearest)) if slo.is_upper else None
            if limit is not None:
                found[slo.text] = limit
        return found

    def _rivals(
        self, measured: Sequence[TrialResult], config: EngineConfig, quality: QualityScore | None, cost: Cost
    ) -> list[Rival]:
        """Of the trials that may dominate, the one with the lowest latency: whom it does not dominate, none does."""
        if self._limited is None:
            return []
        able = [t for t in measured if t.feasible and _beats(t, config, quality, cost)]
        if not able:
            return []
        best = min(able, key=lambda t: (LATENCY.read_trial(t).value, t.number))
        try:
            limits = tuple(_behind(measure, best) for measure in self._limited)
        except OptimizerError:
            return []
        known = {limit.flat_name: self._clustering([best, measured[0]], limit) for limit in limits}
        return [Rival(name=f"trial {best.number}", limits=limits, clustering=known)]

    def _clustering(self, trials: Sequence[TrialResult], limit: PercentileLimit) -> float:
        return max(clustering_of(self._values(trial.number, limit.metric), limit.share) for trial in trials)

    def _values(self, number: int, metric: LimitedMetric) -> Floats:
        """Of a trial's requests in order of intended start."""
        if number not in self._records:
            path = TrialFolder(self._study_dir, number).path / "records.parquet"
            self._records[number] = RecordArrays.from_records(read_records(path))
        return limited_values(self._records[number], metric)


def bounds_of(exceeded: Sequence[PercentileLimit], cost: Cost) -> Mapping[str, float]:
    """What a stopped trial would at least have measured, under `TrialResult.bounds`'s names."""
    latencies = {limit.flat_name: 1000 * limit.limit_s for limit in exceeded}
    return latencies | {COST.field: cost.usd_per_million_tokens.low}


def _beats(trial: TrialResult, config: EngineConfig, quality: QualityScore | None, cost: Cost) -> bool:
    """No worse in quality and cost beyond doubt (see `dominated_beyond_doubt`), on the same hardware."""
    found = intervals(trial)
    if found is None or trial.cost is None or (trial.cost.sku, trial.cost.sku_count) != (cost.sku, cost.sku_count):
        return False
    same_class = trial.config.quality_class() == config.quality_class()
    best_loss = 0.0 if quality is None else 1 - quality.quality.high
    return (same_class or found[0].high <= best_loss) and found[2].high <= cost.usd_per_million_tokens.low


def _limited_measures(objective: Objective) -> tuple[Measure, ...] | None:
    """The latencies in which a rival must be better; None where the objective is about what a limit cannot say."""
    found = {LATENCY.field: LATENCY}
    for term in objective.terms:
        measure = term.measure
        if measure.source == "cost" or measure == QUALITY:
            continue
        if percentile_limit(measure, 1.0) is None:
            return None
        found[measure.field] = measure
    return tuple(found.values())


def _behind(measure: Measure, trial: TrialResult) -> PercentileLimit:
    """Worse than the trial by more than what counts as a tie."""
    limit = percentile_limit(measure, measure.read_trial(trial).value * (1 + TIE))
    assert limit is not None
    return limit
