import contextlib
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trial_cases import cost, quality, trial

from optimizer.errors import OptimizerError
from optimizer.measure import LATENCIES, MEASURES
from optimizer.slo import Slo, evaluate, evaluate_trial, parse_slos, violation, with_quality_floor

OPERATORS = st.sampled_from(["<", "<=", ">", ">="])
PERCENTILES = st.floats(0.1, 99.9).map(lambda p: f"p{round(p, 1):g}")
LATENCY_SLOS = st.builds(
    Slo,
    metric=st.sampled_from(sorted(LATENCIES)),
    statistic=PERCENTILES | st.sampled_from(["mean", "std"]),
    op=OPERATORS,
    limit=st.floats(1e-9, 1e6),
)
PLAIN_SLOS = st.builds(
    Slo,
    metric=st.sampled_from(sorted({measure.name for measure in MEASURES.values()})),
    op=OPERATORS,
    limit=st.floats(1e-9, 1e9),
)


@given(st.lists(LATENCY_SLOS | PLAIN_SLOS, min_size=1, max_size=4))
def test_what_is_printed_reads_back_the_same(slos: list[Slo]) -> None:
    assert parse_slos("; ".join(map(str, slos))) == tuple(slos)


@given(LATENCY_SLOS | PLAIN_SLOS, st.floats(allow_nan=False))
def test_a_violation_is_positive_exactly_when_the_limit_is_not_met(slo: Slo, value: float) -> None:
    met = {"<": value < slo.limit, "<=": value <= slo.limit, ">": value > slo.limit, ">=": value >= slo.limit}[slo.op]
    assert (violation(slo, value) <= 0) == met
    assert math.isfinite(violation(slo, value))


def test_the_example_of_the_manual_is_read() -> None:
    slos = parse_slos("ttft:p95<300ms; tpot:p50<20ms; quality>=0.99; cost<0.4")
    assert [(s.metric, s.statistic, s.op, s.limit) for s in slos] == [
        ("ttft", "p95", "<", 0.3),
        ("tpot", "p50", "<", 0.02),
        ("quality", None, ">=", 0.99),
        ("cost", None, "<", 0.4),
    ]
    assert [s.text for s in slos] == ["ttft:p95<300ms", "tpot:p50<20ms", "quality>=0.99", "cost<0.4"]


def test_texts_may_be_repeated_and_spaced_and_end_in_a_semicolon() -> None:
    assert parse_slos([" e2el:median <= 2 s ;", "goodput>3"]) == (
        Slo(metric="e2el", statistic="p50", op="<=", limit=2.0),
        Slo(metric="goodput", op=">", limit=3.0),
    )


def test_flat_names_are_milliseconds_and_percent_is_a_hundredth() -> None:
    flat, percent = parse_slos("p99.9_ttft_ms<300; quality>=99%")
    assert flat == parse_slos("ttft:p99.9<0.3s")[0]
    assert percent.limit == 0.99
    assert flat.flat_name == "p99.9_ttft_ms"


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", 1, "expected an SLO"),
        ("ttft<3ms", 1, "say which statistic of ttft"),
        ("tttf:p95<3ms", 1, "there is no metric 'tttf'. Did you mean 'ttft'"),
        ("ttft:q95<3ms", 6, "'q95' is no statistic"),
        ("ttft:p100<3ms", 6, "'p100' is no statistic"),
        ("ttft:p95 3ms", 10, "expected one of < <= > >=, found '3'"),
        ("ttft:p95<", 10, "expected a number, found the end"),
        ("ttft:p95<300", 13, "expected a unit for ttft"),
        ("quality>=1ms", 11, "quality has no unit 'ms'"),
        ("quality:p95>=1", 9, "quality has no statistics"),
        ("cost<0", 6, "a limit on cost is more than 0"),
        ("a$b", 2, "'$' means nothing here"),
        ("cost<1 quality>0.9", 8, "expected ';' between two SLOs, found 'quality'"),
        ("cost<1e999", 6, "too large"),
    ],
)
def test_an_error_points_at_its_column(text: str, column: int, message: str) -> None:
    with pytest.raises(OptimizerError) as error:
        parse_slos(text)
    sentence, shown, caret = str(error.value).split("\n")
    assert message in sentence
    assert f"column {column}:" in sentence
    assert (shown, caret) == (f"  {text}", "  " + " " * (column - 1) + "^")


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused_and_never_a_bug(text: str) -> None:
    with contextlib.suppress(OptimizerError):
        assert parse_slos(text)


def test_a_latency_is_judged_in_seconds_by_its_value() -> None:
    slo = parse_slos("e2el:p95<800ms")[0]
    outcome = evaluate_trial(slo, trial(p95_s=1.0))
    assert (outcome.slo, outcome.value, outcome.limit) == ("e2el:p95<800ms", 1.0, 0.8)
    assert outcome.violation == pytest.approx(0.25)
    assert evaluate(slo, {"p95_e2el_ms": 400.0}, {}, None, None).violation == pytest.approx(-0.5)


def test_quality_and_divergence_are_judged_by_their_worse_end() -> None:
    floor, kl = parse_slos("quality>=0.99; kl<0.02")
    assert evaluate(floor, {}, {}, quality(0.995, low=0.985), None).violation > 0
    assert evaluate(floor, {}, {}, quality(0.995, low=0.99), None).violation <= 0
    assert evaluate(kl, {}, {}, quality(1.0), None).violation <= 0


def test_cost_and_throughput_are_read_from_the_price() -> None:
    dear, slow = parse_slos("cost<0.4; throughput>=2")
    assert evaluate(dear, {}, {}, None, cost(0.5)).violation == pytest.approx(0.25)
    assert evaluate(slow, {}, {}, None, cost(0.5)).violation <= 0


def test_a_measure_the_trial_lacks_is_an_error() -> None:
    with pytest.raises(OptimizerError, match="ttft:p95 was not measured"):
        evaluate_trial(parse_slos("ttft:p95<1s")[0], trial())


def test_every_study_has_a_quality_floor_unless_the_user_gave_one() -> None:
    assert str(with_quality_floor(())[0]) == "quality>=0.99"
    own = parse_slos("quality>=0.9")
    assert with_quality_floor(own) == own


def test_importing_the_grammars_stays_light() -> None:
    code = "import optimizer.slo, optimizer.objective, optimizer.results, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"optuna", "torch", "mlflow", "sklearn", "pandas"} & set(loaded)
