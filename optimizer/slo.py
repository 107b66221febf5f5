"""`Slo`: one limit on one measure, its grammar, and whether a trial meets it.

Does not know how anything is measured, nor what to do when a limit cannot be met.

    slos    := slo (";" slo)*
    slo     := name [":" statistic] ("<" | "<=" | ">" | ">=") number ["s" | "ms" | "us" | "%"]

A latency needs its unit, unless the name carries one (`p95_ttft_ms<300`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from optimizer.errors import OptimizerError
from optimizer.measure import LATENCIES, MEASURES, Measure, measure_named
from optimizer.results import Cost, QualityScore, SloOutcome, TrialResult
from optimizer.tokens import Token, TokenStream
from workloads.estimate import Estimate

Operator = Literal["<", "<=", ">", ">="]
PER_SECOND = {"s": 1, "ms": 1000, "us": 1_000_000}  # dividing is exact where multiplying by 1e-3 is not
DEFAULT_QUALITY_FLOOR = 0.99
_BARELY = 1e-9  # violation of a strict limit that is hit exactly
_FARTHEST = 1e9  # violation told for a value that is not a number


@dataclass(frozen=True, kw_only=True)
class Slo:
    """`limit` is in seconds for latencies, else in the measure's own unit; `text` is as the user wrote it."""

    metric: str  # "ttft", "quality", "cost", "goodput", ...
    statistic: str | None = None  # "p95", "mean"; latencies only
    op: Operator
    limit: float
    text: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.text:
            object.__setattr__(self, "text", str(self))

    @property
    def measure(self) -> Measure:
        return measure_named(self.metric, self.statistic)

    @property
    def flat_name(self) -> str:
        """Key in a trial's metrics, e.g. `p95_ttft_ms`; for quality and cost the field of their score."""
        return self.measure.field

    @property
    def is_upper(self) -> bool:
        return self.op in ("<", "<=")

    def __str__(self) -> str:
        return f"{self.measure}{self.op}{self.format(self.limit)}"

    def format(self, value: float) -> str:
        """The value as a limit of this SLO is written; reads back as exactly the same number."""
        if not self.measure.is_latency:
            return _exact(value)
        milliseconds = _exact(float(f"{value * 1000:.12g}"))
        return f"{milliseconds}ms" if float(milliseconds) / 1000 == value else f"{_exact(value)}s"

    def with_limit(self, limit: float) -> Slo:
        return Slo(metric=self.metric, statistic=self.statistic, op=self.op, limit=limit)


def _exact(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def parse_slos(texts: str | Iterable[str]) -> tuple[Slo, ...]:
    """Every SLO of one or more texts, in order.

    Raises:
        OptimizerError: with a caret under the column that cannot be read.
    """
    texts = [texts] if isinstance(texts, str) else texts
    return tuple(slo for text in texts for slo in _Parser(text).slos())


def with_quality_floor(slos: tuple[Slo, ...]) -> tuple[Slo, ...]:
    """The SLOs, and the default floor unless they bound quality themselves."""
    if any(slo.metric == "quality" for slo in slos):
        return slos
    return (*slos, Slo(metric="quality", op=">=", limit=DEFAULT_QUALITY_FLOOR))


def evaluate(
    slo: Slo,
    metrics: Mapping[str, float],
    estimates: Mapping[str, Estimate],
    quality: QualityScore | None,
    cost: Cost | None,
) -> SloOutcome:
    """Whether the limit holds; what is scored on a sample of requests (quality, KL) by its interval's worse end.

    Raises:
        OptimizerError: the measure is not there.
    """
    estimate = slo.measure.read(metrics, estimates, quality, cost)
    judged = estimate.value
    if slo.measure.source == "quality":
        judged = estimate.high if slo.is_upper else estimate.low
    return SloOutcome(slo=slo.text, value=judged, limit=slo.limit, violation=violation(slo, judged))


def evaluate_trial(slo: Slo, trial: TrialResult) -> SloOutcome:
    """`evaluate` on a trial's parts."""
    return evaluate(slo, trial.metrics, trial.estimates, trial.quality, trial.cost)


def violation(slo: Slo, value: float) -> float:
    """Relative distance past the limit: (value - limit) / limit for an upper one; <= 0 exactly when it is met."""
    if math.isnan(value):
        return _FARTHEST
    past = value - slo.limit if slo.is_upper else slo.limit - value
    relative = max(-_FARTHEST, min(_FARTHEST, past / (slo.limit or 1.0)))
    strict = slo.op in ("<", ">")
    if past > 0 or (strict and past == 0):
        return max(relative, _BARELY)
    return min(relative, 0.0)


class _Parser:
    """Recursive descent over one text."""

    def __init__(self, text: str) -> None:
        self._tokens = TokenStream(text, what="SLO")

    def slos(self) -> list[Slo]:
        found = []
        while not self._tokens.at_end:
            found.append(self._slo())
            if not self._tokens.at_end:
                self._tokens.expect(lambda t: t.text == ";", "';' between two SLOs")
        if not found:
            raise self._tokens.error("expected an SLO such as ttft:p95<300ms", 0)
        return found

    def _slo(self) -> Slo:
        first = self._tokens.next
        measure = self._measure()
        op = self._tokens.expect(lambda t: t.text in get_args(Operator), "one of < <= > >=")
        number = self._tokens.expect(lambda t: t.kind == "number", "a number")
        limit = self._limit(measure, number, default_unit="ms" if first.text.endswith("_ms") else None)
        text = self._tokens.text[first.column : self._tokens.next.column].strip()
        operator = next(o for o in get_args(Operator) if o == op.text)
        return Slo(metric=measure.name, statistic=measure.statistic, op=operator, limit=limit, text=text)

    def _measure(self) -> Measure:
        name = self._tokens.expect(lambda t: t.kind == "name", "a metric such as ttft:p95, quality or cost")
        statistic = None
        if self._tokens.take_sign(":"):
            statistic = self._tokens.expect(lambda t: t.kind == "name", "a statistic such as p95")
        try:
            return measure_named(name.text, statistic.text if statistic else None)
        except OptimizerError as error:
            known = name.text in LATENCIES or name.text in MEASURES
            raise self._tokens.error(str(error), (statistic if statistic and known else name).column) from None

    def _limit(self, measure: Measure, number: Token, *, default_unit: str | None) -> float:
        limit = float(number.text) / self._divisor(measure, default_unit)
        if not math.isfinite(limit):
            raise self._tokens.error("the limit is too large", number.column)
        if limit == 0 and (measure.is_latency or measure.name == "cost"):
            raise self._tokens.error(f"a limit on {measure.name} is more than 0", number.column)
        return limit

    def _divisor(self, measure: Measure, default: str | None) -> int:
        unit = self._tokens.next
        if default and unit.kind != "name":
            return PER_SECOND[default]
        if measure.is_latency:
            self._tokens.expect(lambda t: t.text in PER_SECOND, f"a unit for {measure.name}: s, ms or us")
            return PER_SECOND[unit.text]
        if self._tokens.take_sign("%"):
            return 100
        if unit.text in PER_SECOND:
            raise self._tokens.error(f"{measure.name} has no unit {unit.text!r}. Write the number alone", unit.column)
        return 1
