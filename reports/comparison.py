"""Recommended against default, metric by metric: from the verification where there was one, else from the search.

Does not know how the pairs are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

from optimizer.results import StudyResult, TrialResult
from reports.measured import COST, LATENCY, QUALITY, estimate_cell, is_settled, is_usable, number_of
from reports.numbers import has_interval, times_better
from reports.table import NOTHING, Cell, Column, Table
from reports.words import MetricWords, metric_words
from workloads.estimate import Estimate

HELD_OUT, SEARCH = "held-out traffic", "the search"
_WITHOUT_VERIFICATION = (LATENCY, "p95_ttft_ms", "p95_tpot_ms", "output_throughput")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One metric of both configs; `improvement` above 1 is better, and from two runs apart it has a wide interval."""

    metric: str
    default: Estimate
    recommended: Estimate
    improvement: Estimate | None
    source: str  # HELD_OUT or SEARCH

    @property
    def words(self) -> MetricWords:
        return metric_words(self.metric)

    @property
    def is_proved(self) -> bool:
        """An interval of the improvement that leaves out 1."""
        found = self.improvement
        return found is not None and has_interval(found) and not found.low <= 1 <= found.high


def pairs(study: StudyResult) -> list[Pair]:
    """Latencies first, then quality and cost; empty when default and recommended are one or nothing was measured."""
    trial = recommended_trial(study)
    if trial is None or trial.number == 0:
        return []
    return [*_latency_pairs(study, trial), *_quality_pairs(study, trial), *_search_pairs(study.default, trial, [COST])]


def recommended_trial(study: StudyResult) -> TrialResult | None:
    return study.trial(study.recommendation.trial) if study.recommendation else None


def chosen_word(study: StudyResult) -> str:
    """What the chosen trial is: recommended, or of those that miss a limit the nearest."""
    return "recommended" if study.recommendation is None or study.recommendation.feasible else "nearest"


def pair_of(found: list[Pair], metric: str) -> Pair | None:
    return next((pair for pair in found if pair.metric == metric), None)


def _latency_pairs(study: StudyResult, trial: TrialResult) -> list[Pair]:
    if study.verification is None:
        return _search_pairs(study.default, trial, _WITHOUT_VERIFICATION)
    return [
        Pair(
            metric=comparison.metric,
            default=comparison.default,
            recommended=comparison.recommended,
            improvement=comparison.improvement,
            source=HELD_OUT,
        )
        for comparison in study.verification.comparisons
    ]


def _quality_pairs(study: StudyResult, trial: TrialResult) -> list[Pair]:
    """Quality is a share of the reference's, so how many times better says nothing."""
    verified = study.verification.quality if study.verification else None
    mine, theirs = verified.quality if verified else number_of(trial, QUALITY), number_of(study.default, QUALITY)
    if mine is None or theirs is None:
        return []
    source = HELD_OUT if verified else SEARCH
    return [Pair(metric=QUALITY, default=theirs, recommended=mine, improvement=None, source=source)]


def _search_pairs(default: TrialResult, trial: TrialResult, metrics: list[str] | tuple[str, ...]) -> list[Pair]:
    found = []
    for metric in metrics:
        theirs, mine = number_of(default, metric), number_of(trial, metric)
        if theirs and mine and min(theirs.low, mine.low) > 0 and is_usable(default):
            lower = metric_words(metric).lower_is_better
            gain = ratio(theirs, mine) if lower else ratio(mine, theirs)
            found.append(Pair(metric=metric, default=theirs, recommended=mine, improvement=gain, source=SEARCH))
    return found


def ratio(one: Estimate, other: Estimate) -> Estimate:
    """one / other of two runs apart: the quotients of their intervals' far ends, wider than either interval alone."""
    return Estimate(
        value=one.value / other.value,
        low=one.low / other.high,
        high=one.high / other.low,
        num_samples=min(one.num_samples, other.num_samples),
    )


def comparison_table(study: StudyResult) -> Table:
    found, word = pairs(study), chosen_word(study)
    columns = (
        Column(name="Metric"),
        Column(name="Default", numeric=True),
        Column(name=word.capitalize(), numeric=True),
        Column(name="Times better", numeric=True, means="above 1 is better; an interval around 1 proves nothing"),
        Column(name="From"),
    )
    return Table(
        title=f"{word.capitalize()} against default", columns=columns, rows=tuple(_row(pair) for pair in found)
    )


def _row(pair: Pair) -> tuple[Cell, ...]:
    few = "" if is_settled(pair.metric, pair.recommended.num_samples) else " (too few requests to settle it)"
    return (
        Cell(text=f"{pair.words.name}{few}", title=pair.words.means),
        estimate_cell(pair.default, pair.metric),
        estimate_cell(pair.recommended, pair.metric),
        _improvement_cell(pair),
        Cell(text=pair.source, tone="muted"),
    )


def _improvement_cell(pair: Pair) -> Cell:
    found = pair.improvement
    if found is None:
        return NOTHING
    tone = ("good" if found.value > 1 else "bad") if pair.is_proved else ""
    title = "" if pair.source == HELD_OUT else "from two runs apart, so its interval is wide"
    return Cell(text=times_better(found), sort=found.value, tone=tone, title=title)  # type: ignore[arg-type]
