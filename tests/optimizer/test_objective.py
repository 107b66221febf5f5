import pytest
from trial_cases import failed, trial

from optimizer.errors import OptimizerError
from optimizer.objective import OBJECTIVES, parse_objective

DEFAULT = trial(0, p95_s=2.0, usd=1.0)


def test_latency_is_p95_end_to_end_in_seconds() -> None:
    latency = parse_objective("latency")
    assert latency.value(trial(1, p95_s=0.5), DEFAULT) == 0.5
    assert latency.metric_names == ("p95_e2el_ms",)
    assert latency.direction == "minimize"
    assert latency.describe() == "lowest p95 end-to-end latency"


def test_more_is_better_turns_the_sign_and_the_ratio() -> None:
    throughput = parse_objective("throughput")
    twice = trial(1, usd=0.5)  # holds twice the requests
    assert throughput.value(twice, DEFAULT) == -2.0
    assert throughput.ratio(twice, DEFAULT).value == pytest.approx(0.5)
    assert throughput.direction == "maximize"


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_default_is_the_measure_of_every_named_objective(name: str) -> None:
    assert parse_objective(name).ratio(DEFAULT, DEFAULT).value == pytest.approx(1.0)


def test_a_weighted_sum_is_of_ratios_and_its_weights_add_up_to_one() -> None:
    objective = parse_objective("7*latency + 3 * cost")
    assert objective.value(trial(1, p95_s=1.0, usd=2.0), DEFAULT) == pytest.approx(0.7 * 0.5 + 0.3 * 2.0)
    assert objective.describe().endswith("70% p95 end-to-end latency + 30% dollars per million tokens")


def test_any_metric_is_an_objective() -> None:
    trial_with = trial(1, metrics={"p50_ttft_ms": 120.0})
    assert parse_objective("p50_ttft_ms").value(trial_with, None) == pytest.approx(0.12)
    assert parse_objective("ttft:median") == parse_objective("ttft:median")
    assert parse_objective("ttft:p50").metric_names == ("p50_ttft_ms",)


def test_the_interval_of_a_ratio_holds_its_value() -> None:
    ratio = parse_objective("balanced").ratio(trial(1, p95_s=1.0, usd=0.8, spread=0.1), DEFAULT)
    assert ratio.low < ratio.value < ratio.high


def test_without_a_measured_default_values_stand_for_themselves() -> None:
    objective = parse_objective("latency + cost")
    assert objective.value(trial(1, p95_s=3.0, usd=1.0), failed(0)) == pytest.approx(2.0)
    assert objective.value(trial(1, p95_s=3.0, usd=1.0), None) == pytest.approx(2.0)


def test_a_trial_without_the_measure_is_an_error() -> None:
    with pytest.raises(OptimizerError, match="was not measured"):
        parse_objective("latency").value(failed(1), DEFAULT)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("latncy", 1, "there is no objective 'latncy'. Did you mean 'latency'"),
        ("speedy", 1, "Use latency, cost, quality, throughput, balanced, a metric"),
        ("ttft", 1, "say which statistic of ttft"),
        ("0.5 latency", 5, "expected '*'"),
        ("latency +", 10, "expected one of latency"),
        ("latency cost", 9, "expected '+' and another term"),
        ("0*latency", 1, "a weight is more than 0"),
        ("latency + balanced", 11, "balanced stands alone"),
        ("", 1, "expected one of latency"),
    ],
)
def test_an_error_points_at_its_column(text: str, column: int, message: str) -> None:
    with pytest.raises(OptimizerError) as error:
        parse_objective(text)
    sentence, _, caret = str(error.value).split("\n")
    assert message in sentence
    assert caret == "  " + " " * (column - 1) + "^"
