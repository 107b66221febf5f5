"""The one sentence a reader without background understands, and how far it can be trusted.

Does not know the tables and pictures below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from optimizer.results import Provenance, StudyResult, TrialResult, TrialState, known_by
from reports.comparison import HELD_OUT, Pair, pair_of, pairs, recommended_trial
from reports.measured import COST, LATENCY, QUALITY, has_placeholder, money, number_of, slo_value
from reports.numbers import has_interval, share, three_digits, times, verdict, with_interval
from reports.words import metric_words
from workloads.estimate import Estimate

Status = Literal["verified", "unverified", "not held", "infeasible", "default", "measured", "nothing"]


@dataclass(frozen=True, kw_only=True)
class Headline:
    """`trust` says in one sentence what stands behind `sentence`."""

    status: Status
    label: str
    sentence: str
    trust: str


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One number to see at a glance."""

    name: str
    value: str
    detail: str


def headline(study: StudyResult) -> Headline:
    status = _status(study)
    label, sentence = _SAY[status](study)
    return Headline(status=status, label=label, sentence=sentence, trust=_trust(study))


def _status(study: StudyResult) -> Status:
    recommendation, checked = study.recommendation, study.verification
    if recommendation is None:
        return "nothing"
    if not recommendation.feasible:
        return "infeasible"
    if study.default.config.engine == "endpoint":
        return "measured"
    if recommendation.trial == 0:
        return "default"
    if checked is None:
        return "unverified"
    return "verified" if checked.holds else "not held"


def _say_nothing(study: StudyResult) -> tuple[str, str]:
    if not study.trials:
        return "No recommendation", "The study ended before anything was measured."
    tried = (
        "the one tried gave no"
        if len(study.trials) == 1
        else f"none of the {len(study.trials)} configurations tried gave a"
    )
    return (
        "No recommendation",
        f"Nothing can be recommended, because {tried} measurement. The reasons are below.",
    )


def _say_default(study: StudyResult) -> tuple[str, str]:
    rivals = sum(trial.number != 0 and _was_tried(trial) for trial in study.trials)
    if not rivals:
        return "Keep the default", f"Keep the default settings for now: nothing else was {known_by(study.trials)}."
    others = "the one other configuration" if rivals == 1 else f"none of the {rivals} other configurations"
    verb = f"{known_by(study.trials)} {'does not do' if rivals == 1 else 'does'}"
    limits = " within your limits" if study.slos else ""
    return "Keep the default", f"Keep the default settings: {others} {verb} better beyond the noise{limits}."


def _say_measured(study: StudyResult) -> tuple[str, str]:
    latency = number_of(study.default, LATENCY)
    complete = f": 95 of 100 answers are complete within {_ms(latency)}" if latency else ""
    limits = " It meets every limit you set." if study.slos else ""
    return "Measured as it is", (
        f"One running server was measured{complete}.{limits} There was nothing to choose from: fopt cannot change its "
        "settings from outside."
    )


def _was_tried(trial: TrialResult) -> bool:
    """Measured, or stopped when it was clear that it loses."""
    return trial.state is TrialState.STOPPED or number_of(trial, LATENCY) is not None


def _say_infeasible(study: StudyResult) -> tuple[str, str]:
    trial = recommended_trial(study)
    assert trial is not None
    missed = [o for o in trial.slos if o.violation > 0]
    values = " and ".join(f"{o.slo} (it reaches {slo_value(o)})" for o in missed) or "every limit"
    return "No configuration meets every limit", (
        f"No configuration that was {known_by(study.trials)} meets every limit you set. The nearest one, "
        f"trial {trial.number}, misses {values}. What each limit would take is below."
    )


def _say_verified(study: StudyResult) -> tuple[str, str]:
    return "Recommended and verified", f"With the recommended settings {_gains(study)}."


def _say_unverified(study: StudyResult) -> tuple[str, str]:
    missed = " and ".join(f"{o.slo} (they reach {slo_value(o)})" for o in study.default.slos if o.violation > 0)
    if missed:
        first = f"The recommended settings meet every limit; the default ones miss {missed}."
        return "Recommended, not verified", f"{first} Against those, {_gains(study)}."
    return "Recommended, not verified", f"In the search, {_gains(study)} with the recommended settings."


def _say_not_held(study: StudyResult) -> tuple[str, str]:
    assert study.verification is not None
    missed = [f"{o.slo} (it reaches {slo_value(o)})" for o in study.verification.slos if o.violation > 0]
    if missed:
        return "Not confirmed", (
            f"On traffic that the search did not see, the recommended settings miss {' and '.join(missed)}. "
            "Keep the default settings, allow more room in the limits, or measure longer."
        )
    return "Not confirmed", (
        "The search found settings that looked better, but on traffic that it did not see the advantage did not hold. "
        "Keep the default settings, or measure longer."
    )


_SAY = {
    "nothing": _say_nothing,
    "default": _say_default,
    "measured": _say_measured,
    "infeasible": _say_infeasible,
    "verified": _say_verified,
    "unverified": _say_unverified,
    "not held": _say_not_held,
}


def _gains(study: StudyResult) -> str:
    """Latency, cost and quality as clauses, what was asked for first."""
    found = pairs(study)
    clauses = {
        "latency": _latency_clause(pair_of(found, LATENCY)),
        "cost": _cost_clause(study, pair_of(found, COST)),
        "quality": _quality_clause(study, pair_of(found, QUALITY)),
    }
    asked = [name for name in clauses if name in study.objective]
    told = [clauses[name] for name in dict.fromkeys([*asked, *clauses]) if clauses[name]]
    if not told:
        return f"the objective comes out best of all that was {known_by(study.trials)}"
    return told[0] if len(told) == 1 else f"{', '.join(told[:-1])}, and {told[-1]}"


def _latency_clause(pair: Pair | None) -> str:
    if pair is None or pair.improvement is None:
        return ""
    gain = pair.improvement
    numbers = f"{_ms(pair.recommended)} instead of {_ms(pair.default)}"
    if pair.is_proved or not has_interval(gain):
        much, word = (gain.value, "sooner") if gain.value > 1 else (1 / gain.value, "later")
        return f"95 of 100 answers are complete within {numbers} ({times(much)} {word})"
    return f"answers take about as long as before ({numbers} for 95 of 100, no clear difference)"


def _ms(estimate: Estimate) -> str:
    return f"{three_digits(estimate.value)} ms"


def _cost_clause(study: StudyResult, pair: Pair | None) -> str:
    """Dollars only where the price is one."""
    trial = recommended_trial(study)
    if pair is None or trial is None or pair.improvement is None:
        return ""
    if has_interval(pair.improvement) and not pair.is_proved:
        return "the cost does not clearly differ"
    mine, theirs = pair.recommended.value, pair.default.value
    change = f"{abs(1 - mine / theirs):.0%} {'less' if mine < theirs else 'more'}"
    dollars = "" if has_placeholder(trial) else f" (${three_digits(mine)} instead of ${three_digits(theirs)})"
    return f"a million tokens cost {change}{dollars}"


def _quality_clause(study: StudyResult, pair: Pair | None) -> str:
    trial = recommended_trial(study)
    if pair is None or trial is None:
        return ""
    if trial.config.quality_class() == study.default.config.quality_class():
        return "answers are exactly as good as before"
    return f"answer quality is {pair.recommended.value:.1%} of the unquantized model's"


def _trust(study: StudyResult) -> str:
    """What stands behind the recommendation: measured or predicted, on how much, checked again or not."""
    if study.recommendation is None:
        return ""
    if study.interrupted:
        return "The study was interrupted before it could be checked on other traffic: this is the best so far."
    checked = study.verification
    if checked is not None:
        unseen = f"{checked.num_requests:,} requests that the search did not see"
        if "A" not in checked.order:
            return f"The default was measured again, on {unseen}."
        return f"Measured {' '.join(checked.order)} (A default, B recommended, taking turns) on {unseen}."
    trial = recommended_trial(study)
    if trial is not None and trial.provenance is Provenance.PREDICTED:
        return "Predicted by a simulator and not measured: measure it before you rely on it."
    if trial is not None and trial.number == 0:
        return ""
    return "Measured once, in the search, and not checked again on other traffic: the gain may be flattered."


def facts(study: StudyResult) -> list[Fact]:
    """The recommended config's latency, first token, cost and quality; with the default's where it is another."""
    trial = recommended_trial(study)
    if trial is None:
        return []
    found = pairs(study)
    made = [_fact(trial, metric, pair_of(found, metric)) for metric in (LATENCY, "p95_ttft_ms", COST, QUALITY)]
    return [fact for fact in made if fact]


def _fact(trial: TrialResult, metric: str, pair: Pair | None) -> Fact | None:
    estimate = pair.recommended if pair else number_of(trial, metric)
    if estimate is None:
        return None
    words = metric_words(metric)
    value = f"${three_digits(estimate.value)}" if words.unit == "USD" else _plain(estimate, words.style, words.unit)
    name = words.name if words.name.startswith("p95") else words.name.capitalize()
    invented = " · at a placeholder price" if metric == COST and has_placeholder(trial) else ""
    return Fact(name=name, value=value, detail=_detail(estimate, metric, pair) + invented)


def _plain(estimate: Estimate, style: str, unit: str) -> str:
    value = share(estimate.value) if style == "share" else three_digits(estimate.value)
    return f"{value} {unit}".strip()


def _detail(estimate: Estimate, metric: str, pair: Pair | None) -> str:
    if pair is None or metric == QUALITY:
        return _range(estimate, metric)
    default = f"${three_digits(pair.default.value)}" if metric == COST else _ms(pair.default)
    better = f"{verdict(pair.improvement)} · " if pair.improvement else ""
    where = "" if pair.source == HELD_OUT else " · in the search"
    return f"{better}default {default}{where}"


def _range(estimate: Estimate, metric: str) -> str:
    words = metric_words(metric)
    if not has_interval(estimate):
        return words.means
    ends = money(estimate) if words.unit == "USD" else with_interval(estimate, style=words.style)
    return f"interval {ends[ends.index('[') :]}"
