"""What relaxing an SLO would buy: the least change of one limit that admits another trial.

Does not know which trial is recommended for which reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from optimizer.objective import Objective
from optimizer.results import SloAdvice, SloOutcome, TrialResult
from optimizer.slo import Slo, violation
from workloads.estimate import Estimate


def violated(trial: TrialResult) -> list[SloOutcome]:
    """The SLOs it does not meet."""
    return [outcome for outcome in trial.slos if outcome.violation > 0]


def advise(
    trials: Sequence[TrialResult],
    slos: tuple[Slo, ...],
    objective: Objective,
    ratios: Mapping[int, Estimate],
    *,
    chosen: TrialResult,
) -> tuple[SloAdvice, ...]:
    """For each SLO the trial that moving this limit alone would admit; failing that, all that `chosen` would need.

    Of the trials in question the one nearest to the limit is taken when nothing is feasible yet, else the one with the
    best objective.
    """
    alone = [_advice_alone(slo, trials, objective, ratios, chosen) for slo in slos]
    found = tuple(advice for advice in alone if advice is not None)
    return found or tuple(_advice_together(slo, slos, chosen) for slo in slos if slo.text in _names(violated(chosen)))


def _names(outcomes: Sequence[SloOutcome]) -> list[str]:
    return [outcome.slo for outcome in outcomes]


def _advice_alone(
    slo: Slo,
    trials: Sequence[TrialResult],
    objective: Objective,
    ratios: Mapping[int, Estimate],
    chosen: TrialResult,
) -> SloAdvice | None:
    only = [trial for trial in trials if _names(violated(trial)) == [slo.text]]
    if not only:
        return None
    by_violation = bool(violated(chosen))
    trial = min(only, key=lambda t: (violated(t)[0].violation if by_violation else 0.0, ratios[t.number].value))
    limit = admitting_limit(slo, violated(trial)[0].value)
    gain = _gain(trial, objective, ratios, chosen)
    text = f"With {_relaxed(slo, limit)} instead of {slo.text}, trial {trial.number} meets every limit: {gain}."
    return SloAdvice(slo=slo.text, limit_needed=slo.format(limit), trial=trial.number, text=text)


def _advice_together(slo: Slo, slos: tuple[Slo, ...], chosen: TrialResult) -> SloAdvice:
    outcomes = {outcome.slo: outcome for outcome in violated(chosen)}
    limits = {s.text: admitting_limit(s, outcomes[s.text].value) for s in slos if s.text in outcomes}
    others = [_relaxed(s, limits[s.text]) for s in slos if s.text in limits and s.text != slo.text]
    together = f" together with {' and '.join(others)}" if others else ""
    text = f"No single limit is to blame: trial {chosen.number} needs {_relaxed(slo, limits[slo.text])}{together}."
    return SloAdvice(slo=slo.text, limit_needed=slo.format(limits[slo.text]), trial=chosen.number, text=text)


def admitting_limit(slo: Slo, value: float) -> float:
    """The nearest limit of three digits that `value` meets; more digits where three would not admit it."""
    for digits in range(3, 16):
        quantum = 10.0 ** (math.floor(math.log10(abs(value))) + 1 - digits) if value else 10.0**-digits
        steps = math.floor(value / quantum)
        for step in (steps + 1, steps + 2) if slo.is_upper else (steps, steps - 1):
            limit = float(f"{step * quantum:.{digits}g}")
            if violation(slo.with_limit(limit), value) <= 0:
                return limit
    return value


def _relaxed(slo: Slo, limit: float) -> str:
    return str(slo.with_limit(limit))


def _gain(trial: TrialResult, objective: Objective, ratios: Mapping[int, Estimate], chosen: TrialResult) -> str:
    """What the trial gives, relative to what is recommended, or to the default config where nothing qualifies."""
    ratio, beside = ratios[trial.number].value, "the default"
    if chosen.number and not violated(chosen):
        ratio, beside = ratio / max(ratios[chosen.number].value, 1e-9), f"trial {chosen.number}"
    if ratio < 1:
        return f"{1 / max(ratio, 1e-9):.2f}x better than {beside} for {objective.text}"
    return f"{ratio:.2f}x {beside} for {objective.text} (less is better)"
