"""`Objective`: what the user wants least of, as one number per trial.

Does not know limits: those are SLOs.

    objective := term ("+" term)*
    term      := [number "*"] name [":" statistic]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from optimizer.errors import OptimizerError
from optimizer.measure import LATENCIES, MEASURES, Measure, closest, measure_named, scaled
from optimizer.results import TrialResult
from optimizer.tokens import Token, TokenStream
from workloads.estimate import Estimate

NAMED: dict[str, Measure] = {
    "latency": measure_named("e2el", "p95"),
    "cost": measure_named("cost"),
    "quality": measure_named("quality"),
    "throughput": measure_named("throughput"),
}
BALANCED = "latency + cost + quality"
OBJECTIVES = (*NAMED, "balanced")
_TINY = 1e-12  # keeps the ratio to a value of 0 finite


@dataclass(frozen=True, kw_only=True)
class Term:
    """One measure and its share of the sum; the shares of an objective add up to 1."""

    weight: float
    measure: Measure
    name: str  # as written, e.g. "latency"


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A single measure in its own unit, or a weighted sum of ratios to the default config. Minimised."""

    text: str
    terms: tuple[Term, ...]

    def __str__(self) -> str:
        return self.text

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Flat names of the replay's metrics it needs with intervals, e.g. `p95_e2el_ms`."""
        return tuple(dict.fromkeys(t.measure.field for t in self.terms if t.measure.source == "replay"))

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Of the measure people look at; `value` is minimised whatever it says."""
        only = self.terms[0].measure if len(self.terms) == 1 else None
        return "maximize" if only and only.higher_is_better else "minimize"

    def value(self, trial: TrialResult, default: TrialResult | None) -> float:
        """The number to minimise: one measure (seconds, dollars; negative when more is better), or the weighted ratio.

        Raises:
            OptimizerError: the trial does not have a measure it needs.
        """
        if len(self.terms) > 1:
            return self.ratio(trial, default).value
        measure = self.terms[0].measure
        value = measure.read_trial(trial).value
        return -value if measure.higher_is_better else value

    def ratio(self, trial: TrialResult, default: TrialResult | None) -> Estimate:
        """Σ weight x (value / default's, or its inverse where more is better): 1 for the default, 0.5 is twice as good.

        The interval adds up the terms' ends and takes the default's value as given. Without a measured default the
        values stand for themselves.
        """
        parts = [_ratio(term.measure, trial, default) for term in self.terms]
        weighed = [scaled(part, term.weight) for part, term in zip(parts, self.terms, strict=True)]
        return Estimate(
            value=sum(part.value for part in weighed),
            low=sum(part.low for part in weighed),
            high=sum(part.high for part in weighed),
            num_samples=min(part.num_samples for part in weighed),
        )

    def describe(self) -> str:
        """In words, e.g. `lowest p95 end-to-end latency`."""
        if len(self.terms) == 1:
            measure = self.terms[0].measure
            return f"{'highest' if measure.higher_is_better else 'lowest'} {measure.words}"
        parts = " + ".join(f"{term.weight:.0%} {term.measure.words}" for term in self.terms)
        return f"lowest weighted sum relative to the default config: {parts}"


def _ratio(measure: Measure, trial: TrialResult, default: TrialResult | None) -> Estimate:
    mine = measure.read_trial(trial)
    base = _default_value(measure, default)
    if not measure.higher_is_better:
        return scaled(mine, 1 / max(base, _TINY))
    return Estimate(
        value=base / max(mine.value, _TINY),
        low=base / max(mine.high, _TINY),
        high=base / max(mine.low, _TINY),
        num_samples=mine.num_samples,
    )


def _default_value(measure: Measure, default: TrialResult | None) -> float:
    if default is None:
        return 1.0
    try:
        return measure.read_trial(default).value
    except OptimizerError:
        return 1.0


def parse_objective(text: str) -> Objective:
    """A name, a metric, or a weighted sum; `balanced` is equal parts of latency, cost and quality.

    Raises:
        OptimizerError: with a caret under the column that cannot be read.
    """
    terms = _Parser(BALANCED if text.strip() == "balanced" else text).terms()
    total = sum(term.weight for term in terms)
    shares = tuple(Term(weight=term.weight / total, measure=term.measure, name=term.name) for term in terms)
    return Objective(text=text.strip(), terms=shares)


class _Parser:
    """Recursive descent over one text."""

    def __init__(self, text: str) -> None:
        self._tokens = TokenStream(text, what="objective")

    def terms(self) -> list[Term]:
        terms = [self._term()]
        while self._tokens.take_sign("+"):
            terms.append(self._term())
        self._tokens.expect(lambda t: t.kind == "end", "'+' and another term, or the end")
        return terms

    def _term(self) -> Term:
        weight = 1.0
        if self._tokens.next.kind == "number":
            token = self._tokens.take()
            weight = float(token.text)
            if not 0 < weight < float("inf"):
                raise self._tokens.error("a weight is more than 0", token.column)
            self._tokens.expect(lambda t: t.text == "*", "'*' between a weight and what it weighs")
        name = self._tokens.expect(lambda t: t.kind == "name", f"one of {', '.join(OBJECTIVES)}, or a metric")
        statistic = None
        if self._tokens.take_sign(":"):
            statistic = self._tokens.expect(lambda t: t.kind == "name", "a statistic such as p95")
        return Term(weight=weight, measure=self._measure(name, statistic), name=name.text)

    def _measure(self, name: Token, statistic: Token | None) -> Measure:
        if statistic is None and name.text in NAMED:
            return NAMED[name.text]
        if name.text == "balanced":
            raise self._tokens.error("balanced stands alone. Write the sum out instead", name.column)
        try:
            return measure_named(name.text, statistic.text if statistic else None)
        except OptimizerError as error:
            known = name.text in LATENCIES or statistic is not None
            message = str(error) if known else _no_objective(name.text)
            raise self._tokens.error(message, name.column) from None


def _no_objective(name: str) -> str:
    hint = closest(name, [*OBJECTIVES, *LATENCIES, *MEASURES])
    if hint.startswith("Did"):
        return f"there is no objective {name!r}. {hint} Objectives are {', '.join(OBJECTIVES)}, or any metric"
    return f"there is no objective {name!r}. Use {', '.join(OBJECTIVES)}, a metric such as ttft:p95, or a weighted sum"
